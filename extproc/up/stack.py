"""The two stacks: `up` is everything on this machine, `serve` is the sidecar alone.

The rules: parts start in the order in which they need each other and end in the reverse order, so
that a response that still runs keeps its database and its model until it is stored; nothing that
was started here is left behind; secrets travel to children by environment, never by argv.
`serve` supervises its workers even if there is only one, because a blocked worker can only be seen
from outside (E5), and forwards SIGTERM, upon which each worker drains (E4).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from extproc.embedding.opening import with_local_embeddings
from extproc.metrics.endpoint import Attendance, metrics_served
from extproc.settings import Settings
from extproc.settings_source import ALIASES, PREFIX, SettingsError
from extproc.up import probes
from extproc.up.effective import told
from extproc.up.envoy import envoy_command, public_port
from extproc.up.index import with_index
from extproc.up.processes import Child, Command, StartFailed, none_starts, running
from extproc.up.sealing import with_sealing_key
from extproc.up.terminal import Report, log_report, say

_JOIN_SECONDS = 15.0
# How often the private Postgres is looked at, and how long its crash recovery may take.
_LOOK_SECONDS = 0.5
_RESTART_SECONDS = 60.0
if TYPE_CHECKING:
    from storage.postgres.embedded import EmbeddedPostgres

# Connections to the private Postgres beside those of the workers' pools.
_OTHER_CONNECTIONS = 32
# With the pauses between them that is a minute: an evil that passes has passed by then.
_HOPELESS_STARTS = 8
# What a worker needs for its last words after the grace time, beside one statement of the database.
_MARGIN_SECONDS = 4.5


def run(stack: Coroutine[Any, Any, None]) -> None:
    """Run a stack until SIGINT, SIGTERM or SIGHUP; a second signal does not wait for anything."""
    asyncio.run(_until_signalled(stack))


async def _until_signalled(stack: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(stack)
    loop = asyncio.get_running_loop()
    signalled = False

    def stop() -> None:
        nonlocal signalled
        signalled = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    # The terminal was closed; under nohup that is to be ignored.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not signalled:
            raise


async def serve(settings: Settings) -> None:
    """Run the workers until cancelled; Envoy, Postgres and the model are somebody else's.

    Raises `StartFailed` if no worker can be started, now or later.
    """
    if settings.postgres.url is None:
        raise SettingsError([f"{PREFIX}POSTGRES__URL (postgres.url) is needed: where is Postgres?"])
    report = log_report(settings.sidecar.log_format)
    async with workers_alone(settings, report, "inherited") as workers:
        report(f"{settings.sidecar.workers} worker(s) serve in {settings.sidecar.run_dir}")
        if settings.http.listen is not None:
            report(f"and HTTP on {settings.http_address(0)}")
        try:
            await attended(workers)
        except asyncio.CancelledError:
            report("stopping: running responses have time to end")
            raise


async def attended(workers: Sequence[Child], attempts: int = _HOPELESS_STARTS) -> NoReturn:
    """Wait while there is hope; raises `StartFailed` when no worker has started `attempts` times in a row.

    Whoever runs us shall see that (a pod in CrashLoopBackOff), not a process that lives and serves nobody.
    """
    await none_starts(workers, attempts)
    raise StartFailed(
        f"no worker could be started, {attempts} times in a row; what they wrote tells why"
    )


@asynccontextmanager
async def workers_alone(
    settings: Settings, report: Report, output: Literal["prefixed", "inherited"]
) -> AsyncIterator[list[Child]]:
    """The workers, ready; `output` is how what they write is passed on."""
    _allow_many_files()
    with _only_one(settings):
        async with (
            metrics_served(settings, report) as attendance,
            running(_workers(settings, output, attendance), report) as workers,
        ):
            yield workers


async def up(settings: Settings, report: Report = say) -> None:
    """Run everything until cancelled: Postgres, the demo model, Envoy, the workers."""
    try:
        async with whole_stack(settings, report) as url:
            report("")
            report(f"Holdfast is ready at {url}/v1. Try:")
            report("")
            report(_example(settings, url))
            report("")
            report("Ctrl-C stops everything.")
            try:
                await asyncio.Event().wait()
            finally:
                report("Stopping; running responses have time to end (Ctrl-C again: at once) ...")
    except asyncio.CancelledError:
        report("Stopped.")
        raise


@asynccontextmanager
async def whole_stack(settings: Settings, report: Report) -> AsyncIterator[str]:
    """Everything on this machine, ready; gives the base URL (without `/v1`)."""
    _refuse_taken_port(settings)
    _allow_many_files()
    async with AsyncExitStack() as parts:
        parts.enter_context(_only_one(settings))
        settings = with_sealing_key(settings)
        settings = _with_embeddings(settings, report)
        settings = await _with_database(settings, parts, report)
        settings = await with_index(settings, parts, report, _environment())
        await _with_model(settings, parts, report)
        report("Starting Envoy ...")
        envoy = envoy_command(settings, _environment())
        await parts.enter_async_context(running([envoy], report))
        report(f"Starting {settings.sidecar.workers} worker(s) ...")
        attendance = await parts.enter_async_context(metrics_served(settings, report))
        workers = _workers(_without_drain(settings), "prefixed", attendance)
        await parts.enter_async_context(running(workers, report))
        parts.enter_context(told(settings))
        await _joined(settings)
        host = settings.listen.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            host, f"[{host}]" if ":" in host else host
        )
        yield f"http://{shown}:{await public_port(settings)}"


def _with_embeddings(settings: Settings, report: Report) -> Settings:
    """Return the settings with the local embedding model where none is named."""
    if settings.embeddings.source is not None:
        return settings
    settings = with_local_embeddings(settings)
    if settings.embeddings.source is None:
        report("No embedding model: HOLDFAST_EMBEDDINGS__SOURCE names one (docs/embeddings.md).")
    return settings


async def _with_database(settings: Settings, parts: AsyncExitStack, report: Report) -> Settings:
    """Return the settings with a database that has our tables."""
    # Imported here because the supervisor of `serve` needs no database.
    from engine.errors import EngineError
    from storage.postgres.embedded import CannotStart, embedded_postgres
    from storage.postgres.migrate import ChangedMigration, migrate
    from storage.postgres.role import RoleMissing

    try:
        if settings.postgres.url is not None:
            report("Using the Postgres of the settings.")
            conninfo = settings.postgres.url.get_secret_value()
        else:
            directory = settings.data_dir / "postgres"
            report(f"Starting a private Postgres in {directory} ...")
            needed = settings.sidecar.workers * settings.postgres.pool_size + _OTHER_CONNECTIONS
            private = embedded_postgres(directory, max_connections=needed)
            server = await parts.enter_async_context(private)
            conninfo = server.conninfo
            await parts.enter_async_context(_kept_running(server, report))
        await migrate(conninfo, progress=report)
    except CannotStart as error:
        hint = "DATA_DIR names the directory, and DATABASE_URL a Postgres to use instead"
        raise StartFailed(f"{error}\n{hint}") from error
    except (ChangedMigration, RoleMissing, EngineError) as error:
        raise StartFailed(str(error)) from error
    return settings.having(postgres={"url": conninfo})


@asynccontextmanager
async def _kept_running(server: EmbeddedPostgres, report: Report) -> AsyncIterator[None]:
    """Start the private Postgres again when it ends by itself; it recovers what it acknowledged."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if server.is_running:
                continue
            report("Postgres ended; it is started again ...")
            try:
                await server.restart(_RESTART_SECONDS)
                report(f"Postgres runs again (pid {server.pid})")
            except CannotStart as error:
                report(f"Postgres could not be started again: {error}")

    from storage.postgres.embedded import CannotStart

    keeper = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def _with_model(settings: Settings, parts: AsyncExitStack, report: Report) -> None:
    if settings.model.url is not None:
        report(f"Using the model server at {settings.model.url}.")
        return
    report("Starting a demo model, because BACKEND_URL names no model server ...")
    path = settings.demo_socket
    demo = Command(
        name="demo-model",
        argv=[sys.executable, "-m", "extproc.demo", "--socket", str(path)],
        environment={**_environment(), "PYTHONUNBUFFERED": "1"},
        is_ready=partial(probes.accepts, path),
    )
    await parts.enter_async_context(running([demo], report))


def _workers(
    settings: Settings, output: Literal["prefixed", "inherited"], attendance: Attendance | None
) -> list[Command]:
    times = settings.sidecar
    environment = {**_environment(), **settings.environment(), "PYTHONUNBUFFERED": "1"}

    def told(index: int) -> dict[str, Any]:
        if attendance is None:
            return {}
        return {
            "began": partial(attendance.began, index),
            "ended": partial(attendance.ended, index),
        }

    return [
        Command(
            name=f"worker-{index}",
            # faulthandler: a blocked worker writes where it is before it is replaced.
            argv=[
                sys.executable,
                "-X",
                "faulthandler",
                "-m",
                "extproc.worker",
                "--index",
                str(index),
            ],
            environment=environment,
            is_ready=partial(probes.worker_serves, settings.worker_socket(index)),
            is_alive=partial(probes.worker_answers, settings.worker_socket(index)),
            blocked_seconds=times.blocked_seconds,
            stop_seconds=worker_stop_seconds(settings),
            output=output,
            **told(index),
        )
        for index in range(settings.sidecar.workers)
    ]


def worker_stop_seconds(settings: Settings) -> float:
    """Return how long a worker that is told to stop may take before it is killed."""
    times = settings.sidecar
    waited = times.drain_seconds + times.grace_seconds + settings.postgres.timeout_seconds
    return waited + _MARGIN_SECONDS


def _without_drain(settings: Settings) -> Settings:
    """Return the settings without the time for Envoy to turn to another replica: there is none."""
    if "drain_seconds" in settings.sidecar.model_fields_set:
        return settings
    return settings.having(sidecar={"drain_seconds": 0})


async def _joined(settings: Settings) -> None:
    """Wait until Envoy sends requests to every worker."""
    try:
        async with asyncio.timeout(_JOIN_SECONDS):
            while True:
                if await probes.healthy_workers(settings.admin_socket) == settings.sidecar.workers:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise StartFailed("Envoy does not reach the workers") from None


def _environment() -> dict[str, str]:
    """Return this process's environment without our settings: most children need no secret."""
    hidden = {*ALIASES, *(name for name in os.environ if name.startswith(PREFIX))}
    return {name: value for name, value in os.environ.items() if name not in hidden}


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the run directory: a second stack in it would take the first one's sockets."""
    directory = settings.sidecar.run_dir
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise StartFailed(f"cannot write to {directory}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(
                f"another holdfast runs in {directory}; set DATA_DIR to another directory"
            ) from None
        yield


def _refuse_taken_port(settings: Settings) -> None:
    """Say so now: Envoy shares a port with another process without a word (SO_REUSEPORT)."""
    host, port = settings.listen.host, settings.listen.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            told = f"cannot listen on {host}:{port}: {error.strerror}; set PORT to another port"
            raise StartFailed(told) from error


def _allow_many_files() -> None:
    """Raise the limit of open files for the children: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _example(settings: Settings, url: str) -> str:
    model = "holdfast-demo" if settings.model.url is None else "YOUR_MODEL"
    body = f'{{"model": "{model}", "input": "Hello!"}}'
    token = " -H 'authorization: Bearer YOUR_TOKEN'" if settings.tenancy.source == "jwt" else ""
    return f"  curl {url}/v1/responses{token} -H 'content-type: application/json' -d '{body}'"
