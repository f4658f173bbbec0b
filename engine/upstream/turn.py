"""One turn of a model as content inputs, whatever the dialect that it was told in (rules R5-R9).

The readers of the dialects say what came; this decides what can be let through. Text and reasoning that
may be tool calls wait (`markup`), calls go one after the other (`calls`), and what was let through is
never taken back.
"""

from __future__ import annotations

from engine.errors import EngineError
from engine.response.inputs import (
    ArgumentsDelta,
    Content,
    ItemKind,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    UpstreamStarted,
)
from engine.response.turn import TurnRules
from engine.upstream.calls import CallQueue, Key
from engine.upstream.care import Made
from engine.upstream.logprobs import NONE
from engine.upstream.markup import MarkupHold
from engine.upstream.markup_calls import Call, Piece, Rest, read_calls
from engine.upstream.rules import Outcome


class Turn:
    """Collects one turn. `outcome` is None until the turn is over."""

    def __init__(self, rules: TurnRules) -> None:
        self.outcome: Outcome | None = None
        self.rules = rules
        self.seen: set[ItemKind] = set()
        """The kinds of items that were let through."""
        self.recovered = False
        """True once text turned out to be calls: the server's own view of that text is of no use."""
        self.repairs: set[str] = set()
        """Kinds of what the server got wrong and was put right here."""
        self._calls = CallQueue(rules.allowed, None if rules.parallel else 1, self.repairs)
        self._text = _hold(rules) if rules.tools else None
        self._thought = MarkupHold() if rules.tools else None
        self._open: tuple[ItemKind, Key] | None = None
        self._text_key: Key = ""
        self._thought_key: Key = ""
        self._texts: list[str] = []
        self._thought_size = 0
        self._calls_size = 0
        self._waiting_logprobs: list[bytes] = []

    @property
    def held(self) -> int:
        """Characters that were received and not let through yet (rule X5: the loop bounds them)."""
        size = self._calls.held
        if self._text is not None and self._thought is not None:
            size += self._text.size + self._thought.size
        return size

    @property
    def said(self) -> str:
        """The text that was let through."""
        return "".join(self._texts)

    @property
    def made(self) -> Made:
        """What was let through, measured."""
        said = self.said
        shown = len(said) + self._calls_size
        called = "function_call" in self.seen
        return Made(said, shown, self._thought_size, called, frozenset(self.repairs))

    # -- what comes -----------------------------------------------------------------------------

    def text(self, text: str, key: Key, logprobs: bytes = NONE) -> list[Content]:
        """Take more of the message `key`."""
        hold = self._text
        if hold is None:
            return self._shown(text, key, logprobs)
        content = self._end_thought() if self._is_thinking else []
        if key != self._text_key:
            content += self._flush_text()
            hold.begin()
            self._text_key = key
        return content + self._shown(hold.feed(text), key, logprobs)

    def refusal(self, text: str, key: Key) -> list[Content]:
        """Take more of the refusal in the message `key`."""
        if not text:
            return []
        content = self._end_thought() + self._flush_text()
        return [*content, *self._enter("message", key), RefusalDelta(text)]

    def reasoning(self, text: str, key: Key) -> list[Content]:
        """Take more of the reasoning item `key`; a call may have slipped into it."""
        if not text:
            return []
        content = self._flush_text()
        hold = self._thought
        if hold is not None:
            if key != self._thought_key:
                content += self._end_thought()
                self._thought_key = key
            text = hold.feed(text)
        return content + self._think(text, key) if text else content

    def summary(self, text: str, key: Key) -> list[Content]:
        """Take more of a summary of the reasoning item `key`."""
        if not text:
            return []
        content = self._flush_text() + self._end_thought()
        return [*content, *self._enter("reasoning", key), SummaryDelta(text)]

    def announce(
        self, key: Key, name: str, arguments: str, *, certain: bool = False
    ) -> list[Content]:
        """Take the beginning of a call."""
        flushed = self._before_call()
        return flushed + self._called(self._calls.announce(key, name, arguments, certain=certain))

    def arguments(self, key: Key, text: str) -> list[Content]:
        """Take more arguments of a call."""
        flushed = self._before_call()
        return flushed + self._called(self._calls.arguments(key, text))

    def aside(self, content: list[Content]) -> list[Content]:
        """Let items of the server's own tools through, behind what was held back before them."""
        if not any(isinstance(one, UpstreamStarted) for one in content):
            return content
        flushed = self._flush_text() + self._end_thought()
        self._calls.interrupt()
        self._open = None
        return flushed + content

    def end_item(self, key: Key, arguments: str | None, *, is_call: bool) -> list[Content]:
        """Take the end of an item; `arguments` None: it says nothing of them."""
        flushed = self._before_call() if is_call else self._flush_text()
        return flushed + self._called(self._calls.end(key, arguments, is_call=is_call))

    def is_whole(self, key: Key) -> bool:
        """True if a call has all its arguments."""
        return self._calls.is_whole(key)

    # -- the end --------------------------------------------------------------------------------

    def release(self, calls: list[tuple[str, str]] | None, *, cut: bool) -> list[Content]:
        """Let go of everything held: text as text, calls as calls.

        `calls` are the terminal object's, which says better than we could what was a call; None or
        empty: markup that is complete is read here. `cut`: the turn reached a limit.
        """
        return self._release_thought(calls) + self._release_text(calls, cut=cut)

    def settle(self, calls: list[tuple[str, str]] | None) -> list[Content]:
        """Let the calls through that are still owed."""
        return self._called(self._calls.settle(calls))

    def fail(self, error: EngineError) -> list[Content]:
        """End the turn with an error; prose that was held is let go, calls only if they are whole."""
        self.outcome = Outcome(error=error)
        thought = self._thought_tail()
        hold = self._text
        if hold is None or not hold.has_token:
            return thought + self._release_text(None, cut=False)
        pieces = read_calls(hold.release(), self.rules.declared)
        if not any(isinstance(piece, Call) for piece in pieces):
            # Half a call is not for people.
            return thought
        return thought + self._recover(pieces)

    # -- text -----------------------------------------------------------------------------------

    def say(self, text: str, key: Key, logprobs: bytes = NONE) -> list[Content]:
        """Let text through that is no markup."""
        self._texts.append(text)
        if self._open == ("message", key):
            return [TextDelta(text, logprobs)]
        return [*self._enter("message", key), TextDelta(text, logprobs)]

    def message_key(self, otherwise: Key) -> Key:
        """Return the key of the message that is open, which more text continues."""
        return self._open[1] if self._open and self._open[0] == "message" else otherwise

    def _shown(self, text: str, key: Key, logprobs: bytes) -> list[Content]:
        """Let text through with its log probabilities; without any text, they wait for the next."""
        if text:
            return self.say(text, key, self._with_waiting(logprobs))
        if logprobs != NONE:
            self._waiting_logprobs.append(logprobs[1:-1])
        return []

    def _with_waiting(self, logprobs: bytes) -> bytes:
        waiting = self._waiting_logprobs
        if not waiting:
            return logprobs
        joined = b",".join(part for part in (*waiting, logprobs[1:-1]) if part)
        waiting.clear()
        return b"[%b]" % joined

    def _flush_text(self) -> list[Content]:
        """Release what might have become markup: what follows it is no text, so it was prose (rule R8)."""
        hold = self._text
        if hold is None or not hold.tail:
            return []
        if self._open != ("message", self._text_key) and self._calls.running:
            # It would cut the arguments of a call in two; it comes behind them.
            return []
        return self.say(hold.take_tail(), self._text_key, self._with_waiting(NONE))

    def _release_text(self, calls: list[tuple[str, str]] | None, *, cut: bool) -> list[Content]:
        hold = self._text
        if hold is None:
            return []
        if hold.found and calls:
            self.repairs.add("markup_beside_calls")
            hold.drop()
            return []
        marked = hold.found or (cut and hold.has_token)
        text = hold.release()
        if not text:
            return []
        pieces = read_calls(text, self.rules.declared) if marked else []
        if any(isinstance(piece, Call) for piece in pieces):
            return self._recover(pieces)
        if cut and pieces and isinstance(pieces[-1], Rest):
            text = "".join(piece for piece in pieces if isinstance(piece, str))
        return self.say(text, self.message_key("held"), self._with_waiting(NONE)) if text else []

    def _recover(self, pieces: list[Piece]) -> list[Content]:
        """Let text through that was calls, and what stood around them; a call that breaks off is none."""
        self.recovered = True
        self.repairs.add("markup_in_text")
        self._waiting_logprobs.clear()
        content: list[Content] = []
        for piece in pieces:
            if isinstance(piece, Call):
                content += self._called(self._calls.add(piece.name, piece.arguments))
            elif isinstance(piece, str):
                content += self.say(piece, self.message_key("held"))
        return content

    # -- reasoning ------------------------------------------------------------------------------

    @property
    def _is_thinking(self) -> bool:
        hold = self._thought
        return hold is not None and (hold.found or hold.tail != "")

    def _think(self, text: str, key: Key) -> list[Content]:
        self._thought_size += len(text)
        return [*self._enter("reasoning", key), ReasoningDelta(text)]

    def _end_thought(self) -> list[Content]:
        """Release reasoning that was held: the model went on, so it swallowed no call."""
        text = self._thought.release() if self._thought is not None else ""
        return self._think(text, self._thought_key) if text else []

    def _thought_tail(self) -> list[Content]:
        text = self._thought.take_tail() if self._thought is not None else ""
        return self._think(text, self._thought_key) if text else []

    def _release_thought(self, calls: list[tuple[str, str]] | None) -> list[Content]:
        """Release reasoning at the end: where nothing else came, calls in it are what the model meant."""
        hold = self._thought
        if hold is None or not hold.found:
            return self._end_thought()
        text = hold.release()
        pieces = read_calls(text, self.rules.declared)
        swallowed = not self.seen & {"message", "function_call"}
        if not (swallowed or calls) or not any(isinstance(piece, Call) for piece in pieces):
            return self._think(text, self._thought_key)
        content: list[Content] = []
        for piece in pieces:
            if isinstance(piece, str):
                content += self._think(piece, self._thought_key)
            elif isinstance(piece, Call) and not calls:
                self.repairs.add("markup_in_reasoning")
                content += self._called(self._calls.add(piece.name, piece.arguments))
        return content

    # -- items ----------------------------------------------------------------------------------

    def _before_call(self) -> list[Content]:
        content = self._flush_text()
        if self._is_thinking and not self._calls.running:
            # The server has read the call out of the reasoning itself.
            content = self._release_thought([("", "")]) + content
        return content

    def _enter(self, kind: ItemKind, key: Key) -> list[Content]:
        """Start an item where the kind changes or the server started another one of the kind."""
        if self._open == (kind, key):
            return []
        self._open = (kind, key)
        self.seen.add(kind)
        self._calls.interrupt()
        return [ItemStarted(kind)]

    def _called(self, content: list[Content]) -> list[Content]:
        for piece in content:
            if isinstance(piece, ArgumentsDelta):
                self._calls_size += len(piece.text)
        if content:
            self._open = None
            self.seen.add("function_call")
        return content


def _hold(rules: TurnRules) -> MarkupHold:
    if rules.structured or rules.declared is None:
        return MarkupHold()
    return MarkupHold(tool.name for tool in rules.declared)
