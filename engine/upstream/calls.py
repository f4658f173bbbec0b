"""The function calls of one turn, as a stream tells of them and as the terminal object tells of them.

Servers announce a call twice, under two ids, or never close it; only calls that are certain are let
through, one after the other, and the terminal object settles the rest (backends.md §1.1).
"""

from __future__ import annotations

import msgspec

from engine.api.json import is_json
from engine.response.inputs import ArgumentsDelta, Content, ItemStarted
from engine.upstream.json_scan import JsonScan, documents

Key = str | int


# What an announced call takes, roughly, beside its name and arguments.
_CALL_SIZE = 200


class Call(msgspec.Struct):
    """One call: announced, then perhaps certain (`started`), then perhaps finished (`ended`)."""

    key: Key
    name: str
    waiting: list[str] = []
    """Arguments, in pieces, that came while another call was being let through."""
    pieces: list[str] = []
    """Arguments that were let through, joined only when the call ends: a delta costs the same each time."""
    certain: bool = False
    """True if the server said that there is this call; else only arguments or its end make it sure."""
    started: bool = False
    ended: bool = False
    scan: JsonScan = msgspec.field(default_factory=JsonScan)
    extra: list[str] = []
    """What came behind whole arguments: servers join the arguments of several calls (rule R7)."""

    @property
    def sent(self) -> str:
        """The arguments that were let through."""
        self.pieces = ["".join(self.pieces)]
        return self.pieces[0]


class CallQueue:
    """Lets calls through one at a time, in the order in which they became certain.

    `allowed` holds the names that may be called (None: any); `most` the number of calls of the turn.
    `repairs` takes the kinds of what had to be put right.
    """

    def __init__(
        self, allowed: frozenset[str] | None, most: int | None, repairs: set[str] | None = None
    ) -> None:
        self._allowed = allowed
        self._most = most
        self._repairs = set() if repairs is None else repairs
        self._calls: list[Call] = []
        self._live: Call | None = None
        self._count = 0
        self.held = 0
        """Characters, roughly, of calls that were not let through (rule X5)."""

    @property
    def running(self) -> bool:
        """True while a call is let through that may get more arguments."""
        return self._live is not None and self._live.started and not self._live.ended

    def announce(
        self, key: Key, name: str, arguments: str, *, certain: bool = False
    ) -> list[Content]:
        """Note a call. Unless it is `certain`, it needs arguments: servers announce calls that never come.

        Certain calls are let through in the order in which they were announced.
        """
        call = Call(key, name, certain=certain)
        self._calls.append(call)
        self.held += _CALL_SIZE + len(name)
        return self._accept(call, arguments) if arguments or certain else []

    def arguments(self, key: Key, text: str) -> list[Content]:
        """Take arguments of a call; they make it certain."""
        call = self._find(key)
        if call is None or not text:
            return []
        if not call.ended:
            return self._accept(call, text)
        if call.scan.done:
            self._keep_extra(call, text)
        return []

    def is_whole(self, key: Key) -> bool:
        """True if the arguments of a call are a whole object: what comes now is another call's."""
        call = self._find(key)
        if call is None:
            return False
        return call.scan.done or is_json("".join(call.waiting))

    def add(self, name: str, arguments: str) -> list[Content]:
        """Let a whole call through that was found elsewhere: in text."""
        self.interrupt()
        return self._send(Call("", name), arguments)

    def _accept(self, call: Call, text: str) -> list[Content]:
        if not self._may_run(call):
            self._wait(call, text)
            return []
        content = self._send(call, text)
        return content + self._next() if call.ended else content

    def end(self, key: Key, arguments: str | None, *, is_call: bool) -> list[Content]:
        """Take the end of an item. `is_call` False: the server closed what it announced as a message."""
        call = self._find(key)
        if call is None or call.ended:
            return []
        if not call.started and not call.waiting and not is_call:
            self._calls.remove(call)
            return []
        content: list[Content] = []
        if self._may_run(call):
            content = self._send(call, _rest(call.sent, arguments))
        else:
            self._wait(call, _rest("".join(call.waiting), arguments))
        call.ended = True
        # One that waited has ended: the one that is let through goes on.
        return content if self.running else content + self._next()

    def interrupt(self) -> None:
        """Note that an item of another kind begins: a call that was let through gets nothing more."""
        if self._live is not None and self._live.started:
            self._live.ended = True

    def settle(self, terminal: list[tuple[str, str]] | None) -> list[Content]:
        """Bring what was let through into line with the terminal object's calls, (name, arguments) each.

        None: the terminal object says nothing of its output, so what was announced is believed.
        """
        content = self._complete_live(terminal or [])
        self._live = None
        for call in self._calls:
            if (call.waiting or call.certain) and not call.started:
                content += self._send(call, "")
        told = terminal is not None
        if terminal is None:
            terminal = [entry for call in self._calls for entry in _announced(call)]
        unseen = [entry for name, given in terminal for entry in _separate(name, given)]
        for call in self._calls:
            if call.started:
                _take(unseen, call)
        if unseen and told:
            self._repairs.add("calls_unstreamed")
        for name, arguments in unseen:
            content += self._send(Call("", name), arguments or "{}")
        return content

    def _complete_live(self, terminal: list[tuple[str, str]]) -> list[Content]:
        """Send what the call that is let through still lacks, if the terminal object has it."""
        live = self._live
        if live is None or not self.running or is_json(live.sent):
            return []
        sent = {call.sent for call in self._calls}
        for name, arguments in terminal:
            if name == live.name and arguments.startswith(live.sent) and arguments not in sent:
                self._repairs.add("arguments_completed")
                return self._send(live, arguments[len(live.sent) :])
        return []

    def _wait(self, call: Call, text: str) -> None:
        if text:
            call.waiting.append(text)
            self.held += len(text)

    def _find(self, key: Key) -> Call | None:
        for call in reversed(self._calls):
            if call.key == key:
                return call
        return None

    def _may_run(self, call: Call) -> bool:
        """True if the call is, or now becomes, the one that is let through."""
        if self._live is None or self._live.ended:
            self._live = self._eldest() or call
        return self._live is call

    def _eldest(self) -> Call | None:
        for call in self._calls:
            if call.certain and not call.ended:
                return call
        return None

    def _next(self) -> list[Content]:
        """Let the next waiting calls through, up to the first that has not ended."""
        content: list[Content] = []
        self._live = None
        for call in self._calls:
            if (call.waiting or call.certain) and not call.started:
                content += self._send(call, "")
                if not call.ended:
                    self._live = call
                    break
        return content

    def _send(self, call: Call, text: str) -> list[Content]:
        if call.waiting:
            waited = "".join(call.waiting)
            self.held -= len(waited)
            text = waited + text
            call.waiting = []
        content: list[Content] = []
        if not call.started:
            call.started = True
            if not self._admit(call):
                self._repairs.add("call_not_allowed")
                call.ended = True
                return []
            content.append(ItemStarted("function_call", call.name))
        end = call.scan.feed(text)
        if end is not None:
            call.ended = True
            self._keep_extra(call, text[end:])
            text = text[:end]
        if text:
            call.pieces.append(text)
            content.append(ArgumentsDelta(text))
        return content

    def _keep_extra(self, call: Call, text: str) -> None:
        if text.strip():
            self._repairs.add("arguments_joined")
            call.extra.append(text)
            self.held += len(text)

    def _admit(self, call: Call) -> bool:
        """True if the call may be made: `allowed_tools` and `parallel_tool_calls` are hard limits."""
        if self._allowed is not None and call.name not in self._allowed:
            return False
        if self._most is not None and self._count >= self._most:
            return False
        self._count += 1
        return True


def _announced(call: Call) -> list[tuple[str, str]]:
    """Return a streamed call, and those whose arguments stood behind its own; a repetition is none."""
    more = [call.sent, *documents("".join(call.extra))]
    return [(call.name, arguments) for arguments in dict.fromkeys(more)]


def _separate(name: str, arguments: str) -> list[tuple[str, str]]:
    """Return a terminal call as so many calls as its arguments are objects, one if they are none."""
    found = dict.fromkeys(documents(arguments))
    return [(name, one) for one in found] if len(found) > 1 else [(name, arguments)]


def _rest(sent: str, whole: str | None) -> str:
    """Return what `whole` has beyond what was sent, where the one continues the other.

    A complete document is never continued: some servers close a call with all calls' arguments joined.
    """
    if not whole or not whole.startswith(sent) or (sent and is_json(sent)):
        return ""
    return whole[len(sent) :]


def _take(unseen: list[tuple[str, str]], call: Call) -> None:
    """Strike the terminal call that a streamed one stands for: same arguments first, then same name."""
    same_name = [entry for entry in unseen if entry[0] == call.name]
    for entry in same_name:
        if entry[1].strip() == call.sent.strip():
            unseen.remove(entry)
            return
    if same_name:
        unseen.remove(same_name[0])
