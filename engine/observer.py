"""Who looks at a run while it goes on: what it is at now, and then each step of its machine.

Kinds, sizes, phases and times, never content (rules P5, X4). A run that nobody observes pays for one look
at an attribute per input; one that is observed is never held up: what its observer does not take is
counted and dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from engine.account import Fact
from engine.loop import Loop
from engine.response.effects import CallModel, Close, Effect, Refuse, RunTools, Save, Send
from engine.response.inputs import (
    ArgumentsDelta,
    CutShort,
    Failed,
    Input,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    TurnEnded,
)
from engine.response.phase import Phase

_log = logging.getLogger(__name__)

Seen = dict[str, Fact]
"""One line of what is shown."""

_DELTAS = (TextDelta, RefusalDelta, ArgumentsDelta, ReasoningDelta, SummaryDelta)
# Lines that wait for their observer.
_MOST = 1000


def glance(loop: Loop) -> list[Seen]:
    """Return what a run is at: itself, and each part of its work with the seconds that it has taken."""
    account, run = loop.run_of.account, loop.run_of
    machine = run.machine
    now = time.monotonic()
    whole: Seen = {
        **account.ids(),
        "model": account.model,
        "phase": machine.phase.value,
        "seconds": _rounded(now - account.began),
        "silent_seconds": _rounded(now - account.touched),
        "turns": account.turns,
        "tool_calls": account.tool_calls,
        "next_event": machine.sequence,
        "held_characters": machine.held,
        "sent_bytes": account.sent,
        "stored": run.stored,
        "background": run.background,
        "client_gone": account.client_gone,
        "accepted": not run.stored or loop.lease is not None,
    }
    doing: list[Seen] = [{"doing": s.name, "seconds": _rounded(s.seconds)} for s in account.steps]
    return [whole, *doing]


class Observer:
    """Looks at one run from now on; several can."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._began = time.monotonic()
        self._lines: list[Seen] = []
        self._merges: tuple[type, Phase] | None = None
        self._dropped = 0
        self._news = asyncio.Event()
        self._over = False
        # From now on, and not from the first look: it may be over by then.
        loop.run_of.account.observed_by(self._end)

    async def lines(self) -> AsyncGenerator[list[Seen], None]:
        """Yield what there is to see, some lines at a time, until the run is over."""
        machine = self._loop.run_of.machine
        machine.observers = (*machine.observers, self._step)
        try:
            yield glance(self._loop)
            while not self._over or self._lines:
                await self._news.wait()
                yield self._taken()
        finally:
            machine.observers = tuple(o for o in machine.observers if o != self._step)

    def _taken(self) -> list[Seen]:
        self._news.clear()
        lines, self._lines, self._merges = self._lines, [], None
        if self._dropped:
            lines.append({"dropped_lines": self._dropped})
            self._dropped = 0
        return lines

    def _end(self) -> None:
        account = self._loop.run_of.account
        self._over = True
        self._lines.append({"ended": True, **account.line()})
        self._news.set()

    def _step(self, received: Input, before: Phase, effects: list[Effect]) -> None:
        try:
            self._note(received, before, effects)
        except Exception:
            # Whoever looks must not end what is looked at.
            _log.exception("a step could not be shown")

    def _note(self, received: Input, before: Phase, effects: list[Effect]) -> None:
        size = _size(received)
        if self._merges == (type(received), before) and isinstance(received, _DELTAS):
            last = self._lines[-1]
            last["count"] = int(last.get("count", 1)) + 1
            last["size"] = int(last.get("size", 0)) + size
            return
        if len(self._lines) >= _MOST:
            self._dropped += 1
            return
        seen: Seen = {
            "at": _rounded(time.monotonic() - self._began),
            "phase": before.value,
            "input": type(received).__name__,
        }
        if size:
            seen["size"] = size
        if told := _told(received):
            seen["why"] = told
        after = self._loop.run_of.machine.phase
        if after is not before:
            seen["to"] = after.value
        if not isinstance(received, _DELTAS):
            seen["effects"] = ", ".join(map(_effect, effects))
        self._lines.append(seen)
        self._merges = (type(received), before)
        self._news.set()


def _size(received: Input) -> int:
    return len(received.text) if isinstance(received, _DELTAS) else 0


def _told(received: Input) -> str:
    match received:
        case Failed(error=error):
            return error.code or type(error).__name__
        case CutShort(reason=reason):
            return reason
        case TurnEnded(incomplete_reason=reason):
            return reason or ""
        case _:
            return ""


def _effect(effect: Effect) -> str:
    name = type(effect).__name__
    match effect:
        case Send(frames=frames, last=last):
            return f"{name} {len(frames)} bytes to event {last}"
        case CallModel(turn=turn):
            return f"{name} {len(turn.body)} bytes"
        case RunTools(calls=calls):
            return f"{name} {len(calls)}"
        case Save(status=status) | Close(status=status):
            return f"{name} {status}"
        case Refuse(error=error):
            return f"{name} {error.status}"
        case _:
            return name


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
