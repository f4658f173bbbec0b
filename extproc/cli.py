"""The `holdfast` command.

Settings come from the environment and a file, so that no secret is ever an argument. Exit status: 0
done, 1 it could not be done, 2 the command or the settings are wrong (each problem told in a line).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from extproc.envoy.config import render, render_plain
from extproc.settings import Settings
from extproc.settings_docs import as_toml
from extproc.settings_source import PREFIX, SettingsError, with_aliases
from extproc.up.processes import StartFailed
from extproc.up.terminal import say, warn

_ABOUT = """\
The stateful tier of the Responses API inside Envoy: a response is released once Postgres holds it.
"""

_EXAMPLES = """\
examples:
  holdfast up                                  everything on this machine, with a demo model
  BACKEND_URL=http://localhost:8000 holdfast up      the same in front of your model server
  holdfast up --port 9000 --model-url https://models.example.com/v1

  export HOLDFAST_POSTGRES__URL=postgresql://user:password@db/holdfast
  holdfast migrate                             bring the database's tables up to date
  holdfast serve                               the sidecar alone, beside an Envoy of your own

  holdfast serve --http :8080                  without any Envoy: HTTP in, model.url out
  holdfast purge --tenant acme                 remove everything of a tenant

  holdfast reindex                             make the vector index again from the database

  holdfast doctor --backend http://localhost:8000    what of a model server works, and what is repaired

  holdfast debug resp_…                        what a response that runs is at, and each step from now on
  holdfast envoy                               which workers and model servers Envoy calls healthy

  holdfast config                              the settings in force, as a settings file
  holdfast config --envoy > envoy.yaml         the Envoy config that goes with them

Every setting is a variable such as HOLDFAST_LISTEN__PORT, or a key in the file that --config names;
docs/settings.md lists them.
"""

_SERVE = """\
Runs the sidecar alone, for an Envoy that somebody else runs. SIGTERM drains: the health check turns
to NOT_SERVING, running responses have time to end (sidecar.grace_seconds), and the exit status is 0.
Give a container's termination grace period a few seconds more than drain_seconds + grace_seconds.

With --http it needs no Envoy: it serves the API on HOST:PORT, :PORT (this machine alone) or unix:PATH,
and calls the model server of model.url itself. Without Envoy there is nobody who balances, retries,
limits or knows tenants: an Envoy older than 1.37 can stand before it (http.listen, `config --plain`).
"""

_UP = """\
Runs everything on this machine: a private Postgres, a demo model, the sidecar and Envoy. What the
settings name is used instead of what would be started: BACKEND_URL for the model server,
DATABASE_URL for Postgres. Data is kept in DATA_DIR.
"""


_PURGE = """\
Removes every stored response of one tenant, with its input, output and events, running ones too, its
conversations, connectors, prompts, files and vector stores, and ends with the number of responses and
conversations.
What is removed cannot be brought back; backups of the database are not touched.
Without tenancy everything belongs to the tenant 'default'. Beside a `holdfast up`, DATA_DIR is enough.
"""


_REINDEX = """\
Puts the files of vector stores into the index again, from their chunks in the database: after the index
was lost or changed, and after another embedding model was chosen (their vectors are made again then).
What is there already is left alone, so a run that was interrupted can simply be begun again; workers may
serve meanwhile. Searches find what is in the index.
Beside a `holdfast up` it needs no settings but DATA_DIR: it uses what that uses.
"""


_DRAIN = """\
The preStop hook of a pod that Envoy and the workers share: asks Envoy to send its clients elsewhere, and
waits until their requests have ended. Envoy's admin socket is that of the run directory.
"""


_DOCTOR = """\
Asks a model server for everything that Holdfast needs of it, and tells what works, what Holdfast repairs
and what stays broken, with the issue behind it and the settings to use. It generates a few hundred tokens.
Exit status: 0 all works or is repaired, 1 something is broken, 2 the server cannot be reached.
A key is taken from HOLDFAST_MODEL__API_KEY.
"""


_DEBUG = """\
Shows what a running response is at (phase, turns, calls under way, for how long the model was silent), and
then each step until its end: a JSON object a line, kinds and sizes, no content. Asks the workers of this run
directory; nothing has to be restarted or set. Exit status: 1 if it does not run here.
"""


Command = Callable[[argparse.Namespace, Mapping[str, str]], int | None]
"""Carries a command out; returns the exit status where it is not 0."""


def main() -> None:
    """Run the command that was asked for and exit."""
    sys.exit(run(sys.argv[1:], os.environ))


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Return the exit status of one command."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        return command(arguments, environ) or 0
    except SettingsError as error:
        for problem in error.problems:
            warn(f"holdfast: {problem}")
        return 2
    except StartFailed as error:
        warn(f"holdfast: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holdfast",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(
        name: str,
        command: Command,
        brief: str,
        about: str | None = None,
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=brief,
            description=about or brief,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=command)
        if name != "version":
            added.add_argument("--config", metavar="PATH", type=Path, help="settings file (TOML)")
        return added

    up = add("up", _up, "run everything on this machine", _UP)
    up.add_argument("--port", metavar="PORT", help="port to listen on (listen.port)")
    up.add_argument("--model-url", metavar="URL", help="base URL of the model server (model.url)")
    up.add_argument(
        "--inline", action="store_true", help="let requests travel on as model calls (envoy.inline)"
    )
    serve = add("serve", _serve, "run the sidecar alone", _SERVE)
    serve.add_argument(
        "--http", metavar="ADDRESS", help="serve HTTP there and call model.url itself"
    )
    add("migrate", _migrate, "bring the database's tables up to date")
    again = add("reindex", _reindex, "make the vector index again", _REINDEX)
    which = again.add_mutually_exclusive_group()
    which.add_argument("--tenant", metavar="NAME", help="of this tenant alone")
    which.add_argument("--clear", action="store_true", help="empty the index first, of all tenants")
    purge = add("purge", _purge, "remove everything of a tenant", _PURGE)
    purge.add_argument("--tenant", metavar="TENANT", required=True, help="whose data is removed")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    add("health", _health, "say whether a worker of this run directory takes requests")
    drain = add(
        "drain", _drain, "send Envoy's clients elsewhere and wait for their requests", _DRAIN
    )
    drain.add_argument(
        "--least", metavar="SECONDS", type=float, default=5.0, help="wait so long in any case"
    )
    drain.add_argument("--most", metavar="SECONDS", type=float, default=60.0, help="then give up")
    debug = add("debug", _debug, "show what a running response is at", _DEBUG)
    debug.add_argument("response", metavar="RESPONSE_ID", help="id of the response")
    add("envoy", _envoy, "show what the Envoy of this run directory says of itself").add_argument(
        "page", nargs="?", default="clusters", help="clusters (the default), stats, listeners, …"
    )
    doctor = add("doctor", _doctor, "examine a model server", _DOCTOR)
    doctor.add_argument("--backend", metavar="URL", help="base URL of the server (model.url)")
    doctor.add_argument(
        "--model", metavar="NAME", help="model to examine; the first one by default"
    )
    doctor.add_argument("--json", action="store_true", help="print the report as JSON")
    doctor.add_argument(
        "--deadline", metavar="SECONDS", type=float, default=60.0, help="for each probe"
    )
    config = add("config", _config, "print the settings in force")
    shown = config.add_mutually_exclusive_group()
    shown.add_argument("--envoy", action="store_true", help="print the Envoy config instead")
    shown.add_argument("--plain", action="store_true", help="print that for an Envoy before 1.37")
    config.add_argument("--inline", action="store_true", help="with envoy.inline set")
    add("version", _version, "print the version")
    return parser


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    given = {
        f"{PREFIX}LISTEN__PORT": getattr(arguments, "port", None),
        f"{PREFIX}MODEL__URL": getattr(arguments, "model_url", None)
        or getattr(arguments, "backend", None),
    }
    if getattr(arguments, "inline", False):
        given[f"{PREFIX}ENVOY__INLINE"] = "true"
    if http := getattr(arguments, "http", None):
        given |= {f"{PREFIX}HTTP__LISTEN": http, f"{PREFIX}MODEL__VIA": "url"}
    asked = {name: value for name, value in given.items() if value is not None}
    return Settings.load(arguments.config, {**environ, **asked})


def _beside(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Return the settings; what they do not say is as the `holdfast up` uses it that runs there."""
    from extproc.up.effective import used_beside

    settings = _settings(arguments, environ)
    used = used_beside(settings)
    return _settings(arguments, {**used, **with_aliases(environ)}) if used else settings


def _up(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    # Imported by the two commands that need it: the others answer at once.
    from extproc.up import stack

    stack.run(stack.up(_settings(arguments, environ)))


def _serve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from extproc.up import stack

    stack.run(stack.serve(_settings(arguments, environ)))


def _health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from extproc.up import lifecycle

    settings = _beside(arguments, environ)
    if not asyncio.run(lifecycle.ready(settings)):
        raise StartFailed(f"no worker takes requests in {settings.sidecar.run_dir.absolute()}")


def _drain(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from extproc.up import lifecycle

    settings, least, most = _beside(arguments, environ), arguments.least, arguments.most
    left = asyncio.run(lifecycle.drain(settings, least=least, most=most))
    say(f"{left} request(s) still run." if left else "No request runs any more.")


def _migrate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from engine.errors import EngineError
    from extproc.index import migrate_index
    from storage.postgres.migrate import ChangedMigration, migrate
    from storage.postgres.role import RoleMissing

    settings = _settings(arguments, environ)
    conninfo = _database(settings)

    async def work() -> list[str]:
        applied = await migrate(conninfo, progress=say)
        return applied + await migrate_index(settings, say)

    try:
        applied = asyncio.run(work())
    except (EngineError, ChangedMigration, RoleMissing) as error:
        raise StartFailed(str(error)) from error
    say(f"{len(applied)} migration(s) applied." if applied else "The database is up to date.")


def _purge(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from engine.errors import EngineError
    from engine.ports import BlobStore
    from extproc.files import file_store
    from extproc.purge import purge
    from storage.postgres.pool import open_pool
    from storage.postgres.store import PostgresStore

    settings = _beside(arguments, environ)
    conninfo, tenant = _database(settings), arguments.tenant
    if not arguments.yes:
        _confirm(tenant)

    def blobs() -> BlobStore:
        return file_store(settings.files)

    async def work() -> int:
        timeout = settings.postgres.timeout_seconds
        async with open_pool(conninfo, min_size=1, max_size=1, timeout=timeout) as pool:
            return await purge(PostgresStore(pool), blobs, tenant, say)

    try:
        removed = asyncio.run(work())
    except EngineError as error:
        raise StartFailed(str(error)) from error
    say(f"{removed} response(s) and conversation(s) of tenant '{tenant}' removed.")


def _reindex(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from engine.errors import EngineError
    from extproc import reindex

    settings = _beside(arguments, environ)
    work = reindex.run(
        settings,
        _database(settings),
        arguments.tenant,
        clear=arguments.clear,
        progress=reindex.on_standard_error(),
    )
    try:
        made = asyncio.run(work)
    except EngineError as error:
        raise StartFailed(f"{error} The same command goes on from here.") from error
    others = made.files - made.put_in
    rest = f"; the other {others} were there" if others else ""
    say(f"{made.put_in} of {made.files} file(s) put into the index{rest}.")


def _confirm(tenant: str) -> None:
    """Let the tenant's name be typed; raises StartFailed where it is not, or nobody can."""
    say(f"This removes everything of tenant '{tenant}'. Type the tenant's name to go on:")
    if sys.stdin.readline().strip() != tenant:
        raise StartFailed("nothing was removed; --yes removes without asking")


def _database(settings: Settings) -> str:
    if settings.postgres.url is None:
        raise SettingsError([f"{PREFIX}POSTGRES__URL (postgres.url) is needed: which database?"])
    return settings.postgres.url.get_secret_value()


def _doctor(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from extproc.doctor import command

    settings = _settings(arguments, environ)
    if settings.model.url is None:
        raise SettingsError(["--backend URL (model.url) is needed: which server?"])
    if "," in settings.model.url:
        raise SettingsError(
            ["--backend URL (model.url) names several servers: examine one of them"]
        )
    return command.run(
        settings, arguments.model, as_json=arguments.json, deadline=arguments.deadline
    )


def _debug(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from extproc.debugging import look

    settings, wanted = _beside(arguments, environ), arguments.response

    async def show() -> int:
        lines = 0
        for index in range(settings.sidecar.workers):
            async for line in look(settings.debug_socket(index), wanted):
                say(line)
                lines += 1
        return lines

    try:
        if asyncio.run(show()) == 0:
            raise StartFailed(f"{wanted} does not run here; the table `runs` says where it does")
    except KeyboardInterrupt:
        say("")


def _envoy(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    from extproc.up import probes

    socket = _beside(arguments, environ).admin_socket
    page = asyncio.run(probes.page(socket, f"/{arguments.page.lstrip('/')}"))
    if page is None:
        raise StartFailed(f"no Envoy at {socket.absolute()} answers with a page {arguments.page}")
    say(page.rstrip())


def _config(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    settings = _settings(arguments, environ)
    show = render if arguments.envoy else render_plain if arguments.plain else as_toml
    say(show(settings).rstrip())


def _version(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    say(f"holdfast {version('holdfast')}")
