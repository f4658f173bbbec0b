"""The real thing for tests: Postgres, Envoy and workers, in front of the scripted model.

Built from the parts of `holdfast up` (`extproc.up.stack`); added are a Postgres that can be killed and
started again, a door to one worker alone, and ways to look inside: pids, Envoy's statistics, rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from extproc.settings import Settings
from extproc.up.envoy import envoy_command, public_port
from extproc.up.probes import healthy_workers
from extproc.up.processes import running
from extproc.up.stack import whole_stack, workers_alone
from storage.postgres.embedded import EmbeddedPostgres, embedded_postgres
from storage.postgres.embedded_process import children
from storage.postgres.migrate import migrate
from tests.support.scripted_model import Received, ScriptedModel
from tests.support.scripts import Script, Step

DEADLINE = 15.0
# What the tests look for in places where no secret may be.
API_KEY = "sk-the-gateways-own-key"
CLIENT_KEY = "sk-the-clients-key"
_SIDECAR: Mapping[str, object] = {"workers": 2, "log_level": "debug", "log_format": "json"}
# Without the time in which an Envoy that nobody is told of would turn elsewhere.
_ALONE = {**_SIDECAR, "drain_seconds": 0}

Sections = Mapping[str, Mapping[str, object]]
"""Settings by section."""


async def eventually(
    question: Callable[[], Awaitable[object] | object], timeout: float = DEADLINE
) -> None:
    """Wait until the answer is true; TimeoutError if it is not in time."""
    async with asyncio.timeout(timeout):
        while True:
            answer = question()
            told = await answer if isinstance(answer, Awaitable) else answer
            if told:
                return
            await asyncio.sleep(0.01)


class Stack:
    """A running stack. `url` has no `/v1`; `said` is all that its processes wrote.

    `headers` are those that a request needs to be let in.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        model: ScriptedModel,
        said: list[str],
        headers: Mapping[str, str],
    ) -> None:
        self.url = url
        self.settings = settings
        self.model = model
        self.said = said
        self.headers = headers

    # -- the scripted model -----------------------------------------------------------------------

    def plays(self, *scripts: Script | Step) -> str:
        """Give the model a script for one test and return the model name that asks for it."""
        name = uuid.uuid4().hex
        steps = [
            s
            for script in scripts
            for s in (script.steps if isinstance(script, Script) else [script])
        ]
        self.model.named[name] = Script(*steps)
        return f"script/{name}"

    def asked(self, model: str) -> list[Received]:
        """Return the model calls under a model name so far."""
        name = f'"{model}"'.encode()
        return [received for received in self.model.requests if name in received.body[:1000]]

    async def asks(self, model: str, number: int = 1) -> Received:
        """Wait for the so-manieth call under a model name."""
        await eventually(lambda: len(self.asked(model)) >= number)
        return self.asked(model)[number - 1]

    # -- processes --------------------------------------------------------------------------------

    def worker(self, index: int) -> int:
        """Return the pid of a worker; LookupError while there is none."""
        return self._child(
            f"\0extproc.worker\0--index\0{index}\0",
            f"HOLDFAST_SIDECAR__RUN_DIR={self.settings.sidecar.run_dir}\0",
        )

    def envoy(self) -> int:
        """Return Envoy's pid."""
        return self._child(f"{self.settings.sidecar.run_dir}/envoy.yaml\0--concurrency", "")

    def lite(self) -> int:
        """Return the pid of Milvus Lite; LookupError while there is none."""
        return self._child(f"--socket\0{self.settings.index_socket.absolute()}\0", "")

    def _child(self, argument: str, variable: str) -> int:
        for pid in children(os.getpid()):
            process = Path(f"/proc/{pid}")
            try:
                if (
                    argument.encode() in (process / "cmdline").read_bytes()
                    and variable.encode() in (process / "environ").read_bytes()
                ):
                    return pid
            except (FileNotFoundError, ProcessLookupError):
                continue
        raise LookupError(f"no child of ours has {argument!r}")

    async def replaced(self, index: int, old: int) -> None:
        """Wait until a worker runs under another pid and Envoy sends requests to all of them."""

        def another() -> bool:
            try:
                return self.worker(index) != old
            except LookupError:
                return False

        await eventually(another)
        await self.all_workers_take_requests()

    async def all_workers_take_requests(self) -> None:
        """Wait until Envoy spreads requests over all workers.

        Its threads learn of a worker's health up to a second later than its statistics say so.
        """
        before = await self._requests()

        async def spread() -> bool:
            await self._touch()
            now = await self._requests()
            return len(now) == self.settings.sidecar.workers and all(
                count > before.get(worker, 0) for worker, count in now.items()
            )

        await eventually(spread)

    async def _touch(self) -> None:
        async with aiohttp.ClientSession(self.url, headers=self.headers) as session:
            for _ in range(4):
                async with session.get("/v1/responses/resp_x"):
                    pass

    async def _requests(self) -> dict[str, int]:
        """Return how many ext_proc streams each healthy worker was sent, by its socket."""
        lines = await envoy_admin(self.settings.admin_socket, "/clusters")
        told = [line.split("::") for line in lines.splitlines() if line.startswith("sidecar::/")]
        healthy = {line[1] for line in told if line[2:] == ["health_flags", "healthy"]}
        return {
            line[1]: int(line[3]) for line in told if line[2] == "rq_total" and line[1] in healthy
        }

    # -- looking inside ---------------------------------------------------------------------------

    async def stat(self, name: str) -> int:
        """Return one of Envoy's counters or gauges; 0 if it was never touched."""
        return await envoy_stat(self.settings.admin_socket, name)

    async def ext_proc_streams(self) -> int:
        """Return how many ext_proc streams Envoy has opened so far."""
        return await self.stat("http.public.ext_proc.streams_started")

    async def running_by_worker(self, model: str) -> list[int]:
        """Return how many responses with that model each worker runs, as the database has it."""
        owned = dict(
            await self.sql(
                # What follows the # is another in each life of a worker.
                "SELECT split_part(owner, '#', 1), count(*) FROM runs"
                " JOIN responses r ON r.tenant = runs.tenant AND r.id = response_id"
                " WHERE owner IS NOT NULL AND model = %s GROUP BY 1",
                model,
            )
        )
        name, count = self.settings.sidecar.name, self.settings.sidecar.workers
        return [int(owned.get(f"{name}/{index}", 0)) for index in range(count)]

    async def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        url = self.settings.postgres.url
        assert url is not None
        async with await psycopg.AsyncConnection.connect(
            url.get_secret_value(), autocommit=True
        ) as connection:
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, response_id: str) -> dict[str, Any] | None:
        """Return `status` and `output_end` of a response's row; None if there is none."""
        rows = await self.sql(
            "SELECT status, output_end, convert_from(head, 'UTF8') FROM responses WHERE id = %s",
            response_id,
        )
        if not rows:
            return None
        status, output_end, head = rows[0]
        return {"status": status, "output_end": output_end, "head": json.loads(head)}

    @asynccontextmanager
    async def door(self, index: int) -> AsyncIterator[str]:
        """A second Envoy whose only worker is that one; gives its base URL."""
        with short_directory() as directory:
            (directory / "worker-0.sock").symlink_to(self.settings.worker_socket(index).absolute())
            settings = self.settings.having(
                sidecar={"run_dir": directory, "workers": 1},
                model={"socket": directory / "model.sock"},
                envoy={"concurrency": 1},
                listen={"port": 0},
            )
            async with running([envoy_command(settings, os.environ)], self.said.append):

                async def healthy() -> bool:
                    return await healthy_workers(settings.admin_socket) == 1

                await eventually(healthy)
                yield f"http://127.0.0.1:{await public_port(settings)}"


class KillablePostgres:
    """An embedded Postgres of one test's own, on one data directory through all its restarts."""

    def __init__(self, directory: Path, binaries: Path | None) -> None:
        self._directory = directory
        self._binaries = binaries
        self._parts = AsyncExitStack()
        self.server: EmbeddedPostgres | None = None

    async def start(self) -> str:
        """Start, recovering from a crash if need be; return the conninfo."""
        server = embedded_postgres(self._directory, binaries=self._binaries, max_connections=60)
        self.server = await self._parts.enter_async_context(server)
        return self.server.conninfo

    async def kill(self) -> None:
        """End it as a crash does; it can be started again."""
        assert self.server is not None
        self.server.kill()
        await self.stop()

    async def stop(self) -> None:
        """Shut it down; it can be started again."""
        await self._parts.aclose()
        self.server = None


@asynccontextmanager
async def running_stack(
    model: ScriptedModel,
    postgres: str,
    /,
    headers: Mapping[str, str] | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Stack]:
    """Run Envoy and the workers on a database; `sections` are settings beside the tests' own."""
    with short_directory() as directory:
        own: Sections = {
            "listen": {"port": 0},
            "sidecar": _SIDECAR,
            "model": {"url": model.url, "api_key": API_KEY},
            "postgres": {"url": postgres},
        }
        settings = _settings(directory, own, sections)
        said: list[str] = []
        async with whole_stack(settings, said.append) as url:
            stack = Stack(url, settings, model, said, headers or {})
            await stack.all_workers_take_requests()
            yield stack


@asynccontextmanager
async def standalone_stack(
    model: ScriptedModel,
    postgres: str,
    /,
    headers: Mapping[str, str] | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Stack]:
    """Run two workers without any Envoy, as `holdfast serve --http` does: HTTP in, the model's URL out."""
    await migrate(postgres)
    with short_directory() as directory, reserved_port() as port:
        own: Sections = {
            "sidecar": _ALONE,
            "http": {"listen": f":{port}"},
            "model": {"url": model.url, "via": "url", "api_key": API_KEY},
            "postgres": {"url": postgres},
        }
        settings = _settings(directory, own, sections)
        said: list[str] = []
        async with workers_alone(settings, said.append, "prefixed"):
            yield Stack(f"http://127.0.0.1:{port}", settings, model, said, headers or {})


@asynccontextmanager
async def plain_stack(
    model: ScriptedModel,
    postgres: str,
    /,
    headers: Mapping[str, str] | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Stack]:
    """Run two workers as an ordinary HTTP cluster of an Envoy without ext_proc.

    `HOLDFAST_TEST_ENVOY_BIN` names the binary of another release of Envoy.
    """
    await migrate(postgres)
    with short_directory() as directory:
        own: Sections = {
            "listen": {"port": 0},
            "sidecar": _ALONE,
            "http": {"listen": f"unix:{directory}/http.sock"},
            "envoy": {"binary": os.environ.get("HOLDFAST_TEST_ENVOY_BIN")},
            "model": {"url": model.url, "api_key": API_KEY},
            "postgres": {"url": postgres},
        }
        settings = _settings(directory, own, sections)
        said: list[str] = []
        async with workers_alone(settings, said.append, "prefixed"):
            envoy = envoy_command(settings, os.environ, plain=True)
            async with running([envoy], said.append):
                url = f"http://127.0.0.1:{await public_port(settings)}"
                stack = Stack(url, settings, model, said, headers or {})

                async def all_healthy() -> bool:
                    return await healthy_workers(settings.admin_socket) == 2

                await eventually(all_healthy)
                yield stack


def _settings(directory: Path, own: Sections, given: Sections) -> Settings:
    """Return the settings of a stack, the given ones over its own."""
    # Most tests search nothing; those that do name their index.
    own = {"index": {"kind": "off"}, **own}
    # So that no test depends on when a worker has learnt what its model server is.
    own = {**own, "model": {"dialect": "responses", **own["model"]}}
    # So that stacks that run at once do not meet at one port.
    own = {"metrics": {"listen": f"unix:{directory}/metrics.sock"}, **own}
    merged = {name: {**own.get(name, {}), **given.get(name, {})} for name in {*own, *given}}
    return Settings(data_dir=directory, **merged)  # type: ignore[arg-type]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given: bound, not listened on, and shared with our workers alone."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]


async def envoy_stat(admin: Path, name: str) -> int:
    """Return one of Envoy's counters or gauges; 0 if it was never touched."""
    _, _, value = (await envoy_admin(admin, f"/stats?filter=^{name}$")).partition(": ")
    return int(value or 0)


async def envoy_admin(admin: Path, path: str) -> str:
    """Return what Envoy's admin interface says."""
    connector = aiohttp.UnixConnector(str(admin))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://envoy{path}") as answer,
    ):
        return await answer.text()


def memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Peaks:
    """The most memory that processes had since this was made, over what they had then, in bytes."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._began = {pid: memory(pid) for pid in pids}
        for pid in self._began:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here on

    def grown(self) -> list[int]:
        """Return by how much each has grown at the most."""
        return [_peak(pid) - began for pid, began in self._began.items()]


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory with a path short enough for sockets, and that others than root can enter."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)
