"""What the machine makes of its inputs, on its way out: into the event log and to the client."""

from __future__ import annotations

from collections.abc import Iterable

from engine.account import Account
from engine.eventlog import EventLog
from engine.pipe import Pipe
from engine.response.effects import Send
from engine.response.inputs import Content, ModelAnswered, ToolEnded, WaitedLong
from engine.response.machine import ResponseMachine
from engine.response.notes import without_held


class Delivery:
    """Of one run. Without a `log` nothing is logged, and without `stream` nothing goes to the pipe."""

    def __init__(
        self,
        machine: ResponseMachine,
        pipe: Pipe,
        log: EventLog | None,
        account: Account,
        *,
        stream: bool,
    ) -> None:
        self.log = log
        self._account = account
        self.deltas = 0
        """Events that content has made."""
        self._machine = machine
        self._pipe = pipe
        self._stream = stream

    async def send(self, frames: bytes, last: int, *, held: bool = False) -> None:
        """Release events; they are in the log's hands, too, before anything is waited for.

        `held`: as of the effect `Send`.
        """
        if not frames:
            return
        if self.log is not None:
            self.log.add(frames, last)
        if self._stream:
            shown = without_held(frames) if held else frames
            self._account.sent += len(shown)
            await self._pipe.write(shown, last)

    async def feed(
        self, inputs: Iterable[Content | ModelAnswered | WaitedLong | ToolEnded]
    ) -> None:
        """Give inputs to the machine and send its events in one write."""
        frames: list[bytes] = []
        receive = self._machine.receive
        last = -1
        held = False
        try:
            for received in inputs:
                for effect in receive(received):
                    assert isinstance(effect, Send)
                    frames.append(effect.frames)
                    last = effect.last
                    held = held or effect.held
        finally:
            # Also where something broke half-way: these events have their numbers, none may be missing.
            self.deltas += len(frames)
            await self.send(b"".join(frames), last, held=held)

    async def keep_up(self) -> None:
        """Wait for the log where too much of it is not written yet."""
        if self.log is not None and self.log.crowded:
            await self.log.room()
