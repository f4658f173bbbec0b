"""A small supervisor of child processes, one `Child` for each.

The rules it keeps: a child is ready before it is relied on, and every wait for it has a deadline; a
child that ends is started again, with a growing pause, for as long as whoever runs it likes; one that
no longer answers is killed and started again (E5); stopping is SIGTERM, time to finish, SIGKILL; no
child survives us, whatever kills us; and only processes that were started here are ever signalled.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extproc.up.terminal import Report

Check = Callable[[], Awaitable[bool]]

_FOLLOW = Path(__file__).with_name("follow.py")
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
# A child that ran for so long is not in a loop of crashes.
_SETTLED_SECONDS = 30.0
# Time for a blocked child to write where it is blocked.
_TRACEBACK_SECONDS = 1.0
_LONGEST_LINE = 64 << 10


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and how to tell that it works.

    `is_ready` becomes true once, within `ready_seconds`. `is_alive`, if given, stays true: after
    `blocked_seconds` without, the process is replaced. `output` is `prefixed` where a person reads
    several processes on one terminal, and `inherited` where a collector reads each line as it is.
    `began` is told when it is ready, and `ended` when the process is gone: why, if it is started again.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    is_ready: Check
    ready_seconds: float = 30.0
    stop_seconds: float = 5.0
    is_alive: Check | None = None
    blocked_seconds: float = 20.0
    output: Literal["prefixed", "inherited"] = "prefixed"
    began: Callable[[], None] = lambda: None
    ended: Callable[[Literal["ended", "blocked"] | None], None] = lambda _reason: None


class StartFailed(Exception):
    """A child ended, or did not become ready in time, when it was first started."""


@asynccontextmanager
async def running(commands: Sequence[Command], report: Report) -> AsyncIterator[list[Child]]:
    """Run the commands side by side, all ready, kept running; stop them all on the way out."""
    children = [Child(command, report) for command in commands]
    try:
        await _start(children)
        for child in children:
            child.keep()
        yield children
    finally:
        try:
            await asyncio.gather(*(child.stop() for child in children))
        finally:
            # Also if the wait was cancelled: nothing of ours is left when this returns.
            for child in children:
                child.kill()
            await asyncio.gather(*(child.gone() for child in children))


async def none_starts(children: Sequence[Child], attempts: int) -> None:
    """Return once each child has failed to start `attempts` times in a row: trying on repairs nothing.

    One that becomes ready counts from nothing again, so that as long as one of them works this waits.
    """
    while True:
        if all(child.failed_starts >= attempts for child in children):
            return
        await asyncio.sleep(_WATCH_SECONDS)


class Child:
    """One supervised process, through all its restarts."""

    def __init__(self, command: Command, report: Report) -> None:
        self.command = command
        self.restarts = 0
        self.failed_starts = 0
        self._blocked = False
        self._report = report
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._echo: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    def __repr__(self) -> str:
        return f"<Child {self.command.name} pid={self.pid} restarts={self.restarts}>"

    @property
    def pid(self) -> int | None:
        """The process id, or None when nothing runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def start(self) -> None:
        """Start the process and wait until it is ready; `StartFailed` tells its last words."""
        process = await self._spawn()
        if not await self._becomes_ready(process):
            told = "\n".join(f"  {line}" for line in self._last_lines)
            how = "did not become ready" if process.returncode is None else _ending(process)
            raise StartFailed(f"{self.command.name} {how}{':' if told else ''}\n{told}".rstrip())

    def keep(self) -> None:
        """From now on, start the process again when it ends, and end it when it is blocked."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ask the process to end, and give it time to."""
        await _cancelled(self._keeper)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.command.stop_seconds):
                await process.wait()
        except TimeoutError:
            self._report(f"{self.command.name} did not end in time and is killed")

    def kill(self) -> None:
        """End the process now, if it still runs, and do not start it again."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def gone(self) -> None:
        """Wait until the process is gone and its last lines are written."""
        await _cancelled(self._keeper)
        if self._process is not None:
            await self._process.wait()
            self.command.ended(None)
            await self._finish_echo()

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            await self._end()
            if time.monotonic() - started > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            await self._restart()

    async def _restart(self) -> None:
        self.restarts += 1
        self.failed_starts += 1
        try:
            process = await self._spawn()
        except OSError as error:
            self._report(f"{self.command.name} could not be started: {error.strerror}")
            return
        if await self._becomes_ready(process):
            self.failed_starts = 0
            self._report(f"{self.command.name} runs again (pid {process.pid})")
        elif process.returncode is None:
            self._report(f"{self.command.name} did not become ready and is replaced")
            process.kill()

    async def _spawn(self) -> Process:
        await self._finish_echo()
        self._blocked = False
        command = self.command
        prefixed = command.output == "prefixed"
        self._process = await asyncio.create_subprocess_exec(
            # -I -S: only the standard library, which makes the start quick.
            *(sys.executable, "-I", "-S", str(_FOLLOW), str(os.getpid()), *command.argv),
            env=dict(command.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE if prefixed else None,
            stderr=STDOUT if prefixed else None,
            # Ctrl-C in the terminal is for the supervisor alone: it knows the order of the end.
            start_new_session=True,
        )
        if prefixed:
            self._echo = asyncio.create_task(self._echo_lines(self._process))
        return self._process

    async def _becomes_ready(self, process: Process) -> bool:
        try:
            async with asyncio.timeout(self.command.ready_seconds):
                while process.returncode is None:
                    if await self.command.is_ready():
                        self.command.began()
                        return True
                    await asyncio.sleep(_POLL_SECONDS)
                await self._finish_echo()
        except TimeoutError:
            pass
        return False

    async def _end(self) -> None:
        """Return when the process has ended, by itself or because it was blocked."""
        process = self._process
        if process is None:
            return
        watch = asyncio.create_task(self._watch(process))
        try:
            await process.wait()
        finally:
            await _cancelled(watch)
        await self._finish_echo()
        self._report(f"{self.command.name} {_ending(process)}; it is started again")
        self.command.ended("blocked" if self._blocked else "ended")

    async def _watch(self, process: Process) -> None:
        """Kill the process once it has not answered for `blocked_seconds` (E5)."""
        if self.command.is_alive is None:
            return
        heard = time.monotonic()
        while time.monotonic() - heard < self.command.blocked_seconds:
            await asyncio.sleep(_WATCH_SECONDS)
            if await self.command.is_alive():
                heard = time.monotonic()
        self._blocked = True
        self._report(f"{self.command.name} (pid {process.pid}) does not answer and is replaced")
        # Python's faulthandler writes where each thread is, if the process can still do that.
        if process.returncode is None:
            process.send_signal(signal.SIGABRT)
        await asyncio.sleep(_TRACEBACK_SECONDS)
        if process.returncode is None:
            process.kill()

    async def _echo_lines(self, process: Process) -> None:
        if process.stdout is None:
            return
        rest = b""
        while chunk := await process.stdout.read(_LONGEST_LINE):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._tell(line)
        if rest:
            self._tell(rest)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._last_lines.append(text)
        self._report(f"{self.command.name} | {text}")

    async def _finish_echo(self) -> None:
        """Let the last lines of an ended process be written; others may still hold its pipe."""
        if self._echo is not None:
            await asyncio.wait([self._echo], timeout=1.0)
            await _cancelled(self._echo)
            self._echo = None


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task of ours and wait until it is over."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _ending(process: Process) -> str:
    code = process.returncode
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


async def _start(children: Sequence[Child]) -> None:
    """Start the children at the same time; raises the `StartFailed` of the first that failed."""
    starts = [asyncio.create_task(child.start()) for child in children]
    try:
        for start in asyncio.as_completed(starts):
            await start
    finally:
        for task in starts:
            task.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
