"""Which call a chat delta belongs to: servers leave indexes and ids out, repeat them, or split a call.

Measured or reported (backends.md §3.9): no index; all calls at index 0; no id; the id and the name again
in each delta; a new id in each delta; an empty name later on; one call's fragments under two indexes.
"""

from __future__ import annotations

import msgspec

from engine.response.inputs import Content
from engine.upstream.chat_frames import Function, ToolCall
from engine.upstream.frames import arguments_text
from engine.upstream.turn import Turn


class _Known(msgspec.Struct):
    """A call that was begun; it is announced when its name is known."""

    key: int
    id: str
    name: str = ""
    early: list[str] = []
    """Arguments that came before the name."""
    empty: bool = True


class ChatCalls:
    """Brings the deltas of tool calls into a turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._calls: list[_Known] = []
        self._by_id: dict[str, _Known] = {}
        self._by_index: dict[int, _Known] = {}
        self.held = 0
        """Characters of calls that have no name yet (rule X5)."""

    def receive(self, delta: ToolCall) -> list[Content]:
        """Take one entry of a delta's `tool_calls`."""
        function = delta.function or Function()
        name, arguments = function.name or "", arguments_text(function.arguments)
        call = self._meant(delta.index, delta.id or "", name)
        if call is None:
            return []
        if not call.name:
            return self._named(call, name, arguments)
        call.empty = call.empty and not arguments
        return self._turn.arguments(call.key, arguments) if arguments else []

    def _named(self, call: _Known, name: str, arguments: str) -> list[Content]:
        call.early.append(arguments)
        if not name:
            self.held += len(arguments)
            return []
        call.name = name
        early = "".join(call.early)
        call.early = []
        call.empty = not early
        return self._turn.announce(call.key, name, early, certain=True)

    def _meant(self, index: int | None, given: str, name: str) -> _Known | None:
        """Return the call that a delta means, a new one where it begins one."""
        call = self._by_id.get(given) if given else None
        if call is not None and self._agrees(call, index, name):
            return call
        call = self._last() if index is None else self._by_index.get(index)
        if call is None and not given and not name:
            # A fragment under an index of its own.
            call = self._last()
            return None if call is None or self._is_whole(call) else call
        if call is None or self._is_another(call, given, name):
            return self._begin(index, given)
        return call

    def _agrees(self, call: _Known, index: int | None, name: str) -> bool:
        """True unless another call has been given the same id."""
        if not name or not call.name:
            return True
        return name == call.name and (index is None or self._by_index.get(index) in (None, call))

    def _is_another(self, call: _Known, given: str, name: str) -> bool:
        """True if a delta at a call's place begins another call."""
        if not name:
            # The id anew in each delta, the name in none but the first.
            return False
        if not call.name:
            return bool(given and call.id and given != call.id)
        if name != call.name or self._is_whole(call):
            return True
        # The same name again: the head repeated with each fragment, unless nothing has come yet.
        return call.empty and bool(given) and given != call.id

    def _is_whole(self, call: _Known) -> bool:
        return self._turn.is_whole(call.key)

    def _begin(self, index: int | None, given: str) -> _Known:
        call = _Known(len(self._calls), given)
        self._calls.append(call)
        if given:
            self._by_id[given] = call
        if index is not None:
            self._by_index[index] = call
        return call

    def _last(self) -> _Known | None:
        return self._calls[-1] if self._calls else None
