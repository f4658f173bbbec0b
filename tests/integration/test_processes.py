"""`extproc.up.processes`: real child processes, started, watched, restarted and ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.up.processes import Child, Command, StartFailed, none_starts, running

DEADLINE = 15.0

WAITS = "import signal; print('up', flush=True); signal.pause()"
SAYS_GOODBYE = """
import os, signal, sys
def leave(*_):
    os.write(1, b"goodbye\\n")  # not print: the signal may come within the print below
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
while True:
    signal.pause()
"""
IGNORES_SIGTERM = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""
# A supervisor of one child that ignores SIGTERM, for killing.
SUPERVISOR = """
import asyncio, os, sys
from extproc.up.processes import Command, running
async def ready():
    return True
async def main():
    command = Command("child", [sys.executable, "-c", sys.argv[1]], os.environ, ready)
    async with running([command], lambda line: None) as children:
        print(children[0].pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


class Log:
    """What a supervisor reported, and a wait for a line of it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._notify: set[asyncio.Task[None]] = set()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        task = asyncio.create_task(self._tell())
        self._notify.add(task)
        task.add_done_callback(self._notify.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def line(self, pattern: str, after: int = 0) -> int:
        """Wait for a line that matches; return the number of lines up to it."""

        def found() -> int:
            lines = enumerate(self.lines[after:], start=after + 1)
            return next((number for number, line in lines if re.search(pattern, line)), 0)

        async with asyncio.timeout(DEADLINE), self._news:
            await self._news.wait_for(lambda: found() > 0)
        return found()


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def python(
    code: str,
    *,
    name: str = "child",
    ready_seconds: float = DEADLINE,
    stop_seconds: float = DEADLINE,
) -> Command:
    """A child that runs `code` and counts as ready at once."""
    return Command(
        name=name,
        argv=[sys.executable, "-c", code],
        environment=os.environ,
        is_ready=yes,
        ready_seconds=ready_seconds,
        stop_seconds=stop_seconds,
    )


@contextmanager
def watched(pid: int) -> Iterator[asyncio.Event]:
    """An event that is set when the process has ended, whoever its parent is."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    pidfd = os.pidfd_open(pid)
    loop.add_reader(pidfd, gone.set)
    try:
        yield gone
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def pid_of(child: Child) -> int:
    assert child.pid is not None
    return child.pid


async def test_lines_of_a_child_carry_its_name() -> None:
    """Several processes share one terminal."""
    log = Log()
    async with running([python(WAITS, name="worker-0")], log):
        await log.line(r"^worker-0 \| up$")


async def test_a_child_that_dies_is_started_again() -> None:
    """E5: a killed worker is back without anybody's doing."""
    log = Log()
    async with running([python(WAITS)], log) as [child]:
        first = pid_of(child)
        os.kill(first, signal.SIGKILL)
        seen = await log.line("was ended by SIGKILL; it is started again")
        await log.line("runs again", after=seen)

        assert pid_of(child) != first
        assert child.restarts == 1


async def test_a_child_that_no_longer_answers_is_replaced() -> None:
    """E5: a blocked worker is noticed and replaced, although its process lives."""
    log = Log()
    blocked = replace(python(IGNORES_SIGTERM, stop_seconds=0.1), is_alive=no, blocked_seconds=0.1)
    async with running([blocked], log) as [child]:
        with watched(pid_of(child)) as gone:
            seen = await log.line("does not answer and is replaced")
            async with asyncio.timeout(DEADLINE):
                await gone.wait()
        await log.line("runs again", after=seen)


async def test_a_child_that_cannot_start_tells_its_last_words() -> None:
    """A wrong setting is read on the terminal, not guessed from a status."""
    dead = _never_ready(python("import sys; print('no such database'); sys.exit(3)"))
    with pytest.raises(StartFailed, match=r"(?s)child ended with status 3.*no such database"):
        await _start(dead)


async def test_a_child_that_is_not_ready_in_time_is_ended() -> None:
    """Every wait has a deadline, and a failed start leaves nothing behind."""
    with pytest.raises(StartFailed, match="did not become ready"):
        await _start(_never_ready(python(WAITS, ready_seconds=1.0)))


async def test_children_of_which_one_starts_are_tried_on(tmp_path: Path) -> None:
    """Only when none can be started is there nobody left to serve; one that becomes ready gives hope anew."""
    here, there = _Breakable(tmp_path / "here"), _Breakable(tmp_path / "there")
    log = Log()
    async with running([here.command, there.command], log) as children:
        hopeless = asyncio.create_task(none_starts(children, 2))
        here.breaks(children[0])
        seen = await log.line(r"here ended with status 1; it is started again")
        await log.line(r"here ended with status 1; it is started again", after=seen)
        assert children[0].failed_starts >= 2
        assert not hopeless.done()

        here.is_mended()
        await log.line("here runs again")
        assert children[0].failed_starts == 0
        here.breaks(children[0])
        there.breaks(children[1])
        # The pauses have grown.
        async with asyncio.timeout(2 * DEADLINE):
            await hopeless
        assert min(child.failed_starts for child in children) >= 2


class _Breakable:
    """A child that cannot be started while it is broken."""

    def __init__(self, place: Path) -> None:
        self._broken, self._ready = place.with_suffix(".broken"), place.with_suffix(".ready")
        code = (
            f"import os, pathlib; os.path.exists({str(self._broken)!r}) and os._exit(1); "
            f"pathlib.Path({str(self._ready)!r}).touch(); {WAITS}"
        )
        self.command = replace(python(code, name=place.name), is_ready=self._is_ready)

    async def _is_ready(self) -> bool:
        return await asyncio.to_thread(self._ready.exists)

    def breaks(self, child: Child) -> None:
        self._broken.touch()
        self._ready.unlink()
        os.kill(pid_of(child), signal.SIGKILL)

    def is_mended(self) -> None:
        self._broken.unlink()


async def test_when_one_child_fails_to_start_the_others_are_ended(tmp_path: Path) -> None:
    """All or none."""
    pid_file = tmp_path / "pid"
    code = (
        f"import os, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); {WAITS}"
    )

    good = python(code, name="good")
    bad = _never_ready(python("import sys; sys.stdin.read(); sys.exit(1)", name="bad"))
    with pytest.raises(StartFailed, match="bad"):
        await _start(good, bad)

    if pid_file.exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)


async def test_a_stopped_child_has_time_to_finish() -> None:
    """E4: SIGTERM first, and its last lines are still shown."""
    log = Log()
    async with running([python(SAYS_GOODBYE)], log):
        await log.line("up")

    assert log.lines[-1] == "child | goodbye"


async def test_a_child_that_does_not_stop_in_time_is_killed() -> None:
    """The end has a deadline too."""
    log = Log()
    async with running([python(IGNORES_SIGTERM, stop_seconds=0.1)], log) as [child]:
        await log.line("up")
        pid = pid_of(child)

    assert "child did not end in time and is killed" in log.lines
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_parts_end_in_the_reverse_order_of_their_start() -> None:
    """A response that still runs keeps what it needs."""
    log = Log()
    async with running([python(SAYS_GOODBYE, name="database")], log):
        await log.line(r"database \| up")
        async with running([python(SAYS_GOODBYE, name="worker")], log):
            await log.line(r"worker \| up")

    goodbyes = [line for line in log.lines if line.endswith("goodbye")]
    assert goodbyes == ["worker | goodbye", "database | goodbye"]


async def test_a_second_cancellation_does_not_wait() -> None:
    """Ctrl-C twice ends at once, and still leaves nothing."""
    log = Log()
    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def stack() -> None:
        async with running([python(IGNORES_SIGTERM, stop_seconds=3600)], log) as [child]:
            await log.line("up")
            started.set_result(pid_of(child))
            await asyncio.Event().wait()

    task = asyncio.create_task(stack())
    async with asyncio.timeout(DEADLINE):
        with watched(await started) as gone:
            task.cancel()
            # One turn of the loop: the stop has begun.
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone.wait()


async def test_no_child_outlives_a_supervisor_that_is_killed() -> None:
    """kill -9 of `holdfast up` leaves no Envoy and no worker behind."""
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISOR, IGNORES_SIGTERM), stdout=PIPE
    )
    assert supervisor.stdout is not None
    async with asyncio.timeout(DEADLINE):
        child = int(await supervisor.stdout.readline())
        with watched(child) as gone:
            supervisor.kill()
            await supervisor.wait()
            await gone.wait()


def _never_ready(command: Command) -> Command:
    return replace(command, is_ready=no)


async def _start(*commands: Command) -> None:
    async with running(commands, Log()):
        pytest.fail("it was ready")
