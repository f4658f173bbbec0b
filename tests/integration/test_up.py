"""`holdfast up` and `holdfast serve` as a person and as Kubernetes run them: real processes, signals."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from extproc.settings import Settings
from extproc.up import probes
from extproc.up.processes import StartFailed
from extproc.up.stack import attended, workers_alone

# Starting a database for the first time takes a second, on a busy machine several.
DEADLINE = 60.0
REQUEST = {"model": "holdfast-demo", "input": "Hello"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, that the database's user may pass through."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def holdfast(command: str, **environ: str) -> AsyncIterator[Process]:
    """The command in a process of its own, killed on the way out if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "extproc", command),
        env={**os.environ, **environ},
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process, pattern: str) -> re.Match[str]:
    """Wait for a line of output that matches; what came before is in the error if none does."""
    assert process.stdout is not None
    seen = []
    async with asyncio.timeout(DEADLINE):
        while text := (await process.stdout.readline()).decode():
            seen.append(text)
            if found := re.search(pattern, text):
                return found
    raise AssertionError(f"no line matches {pattern!r}:\n{''.join(seen)}")


async def status(process: Process) -> int:
    """Wait for the end; the rest of the output is read, so that nobody waits for us."""
    async with asyncio.timeout(DEADLINE):
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


async def listening(run_dir: Path) -> list[str]:
    """Return the sockets in the directory on which something listens."""
    sockets = await asyncio.to_thread(lambda: sorted(run_dir.glob("*.sock")))
    return [path.name for path in sockets if await probes.accepts(path)]


async def ask(url: str) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=DEADLINE)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{url}/responses", json=REQUEST) as answer,
    ):
        return answer.status, (await answer.json())["id"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_up_answers_a_request_and_ends_cleanly(
    directory: Path, number: signal.Signals
) -> None:
    """H3: one command, a working API, and after Ctrl-C no process and a clean database."""
    async with holdfast("up", DATA_DIR=str(directory / "data"), PORT="0") as process:
        url = (await line(process, r"ready at (http://\S+/v1)")).group(1)
        answered, _ = await ask(url)
        assert answered == 200

        process.send_signal(number)
        assert await status(process) == 0

    assert await listening(directory / "data" / "run") == []
    assert list((directory / "data" / "postgres").rglob("postmaster.pid")) == []


async def test_a_private_postgres_that_dies_is_started_again(directory: Path) -> None:
    """H3, P1: nothing that was acknowledged is gone, and nobody has to restart anything."""
    async with holdfast("up", DATA_DIR=str(directory / "data"), PORT="0") as process:
        url = (await line(process, r"ready at (http://\S+/v1)")).group(1)
        _, kept = await ask(url)
        pid_file = next((directory / "data" / "postgres").rglob("postmaster.pid"))
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
        await line(process, r"Postgres runs again")

        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{url}/responses/{kept}") as got,
        ):
            assert got.status == 200
        answered, _ = await ask(url)
        assert answered == 200

        process.send_signal(signal.SIGINT)
        assert await status(process) == 0


async def test_up_that_is_killed_leaves_nothing_running(directory: Path) -> None:
    """And the next start works on what it left."""
    environ = {"DATA_DIR": str(directory), "PORT": "0"}
    async with holdfast("up", **environ) as process:
        url = (await line(process, r"ready at (http://\S+/v1)")).group(1)
        await ask(url)
        process.kill()
        await status(process)

    async with holdfast("up", **environ) as process:
        url = (await line(process, r"ready at (http://\S+/v1)")).group(1)
        assert (await ask(url))[0] == 200
        process.send_signal(signal.SIGINT)
        assert await status(process) == 0


async def test_a_second_stack_in_the_same_directory_is_refused(directory: Path) -> None:
    """It would take the first one's sockets."""
    environ = {"DATA_DIR": str(directory), "PORT": "0", "DATABASE_URL": "postgresql:///unused"}
    async with holdfast("serve", **environ) as first:
        await line(first, "serve in")
        async with holdfast("serve", **environ) as second:
            await line(second, "another holdfast runs in")
            assert await status(second) == 1
        first.send_signal(signal.SIGTERM)
        assert await status(first) == 0


async def test_serve_drains_on_sigterm(directory: Path, database: str) -> None:
    """E4: what Kubernetes sends ends with status 0, within the grace period."""
    environ = {
        "DATA_DIR": str(directory),
        "DATABASE_URL": database,
        "HOLDFAST_SIDECAR__WORKERS": "2",
        "HOLDFAST_SIDECAR__DRAIN_SECONDS": "0",
    }
    async with holdfast("serve", **environ) as process:
        await line(process, "2 worker")
        sockets = [
            f"{kind}-{index}.sock" for kind in ("debug", "files", "worker") for index in range(2)
        ]
        assert await listening(directory / "run") == sockets

        process.send_signal(signal.SIGTERM)
        await line(process, "stopping")
        assert await status(process) == 0

    assert await listening(directory / "run") == []


async def test_serve_ends_when_no_worker_can_be_started_any_more(directory: Path) -> None:
    """E5: a pod whose workers cannot start is seen to fail, and not only never to be ready."""
    keys = directory / "keys"
    keys.write_text(base64.b64encode(os.urandom(32)).decode())
    environ = {
        "DATA_DIR": str(directory),
        "DATABASE_URL": "postgresql:///unused",
        "HOLDFAST_SEALING__KEY_FILES": str(keys),
    }
    said: list[str] = []
    async with workers_alone(Settings.load(None, environ), said.append, "prefixed") as [worker]:
        keys.unlink()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(StartFailed, match="2 times in a row"):
            async with asyncio.timeout(DEADLINE):
                await attended([worker], attempts=2)

    assert any(str(keys) in line for line in said)


async def test_a_taken_port_is_told(directory: Path) -> None:
    """Envoy would share it with whoever has it, without a word."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, holdfast("up", DATA_DIR=str(directory), PORT=str(port)) as process:
        await line(process, f"cannot listen on 127.0.0.1:{port}.*set PORT")
        assert await status(process) == 1
