"""A `/v1/responses` stream, of any server and release, as the content inputs of the machine (rules R5-R9).

Lifecycle events, ids, indexes and sequence numbers of the server are not believed: it is read as deltas
plus one terminal object. What the deltas left out or got wrong, the terminal object supplies; what was
already let through is never taken back.
"""

from __future__ import annotations

import msgspec

from engine.api.json import encode
from engine.api.response_object import Usage
from engine.errors import EngineError, UpstreamFailed
from engine.response.inputs import (
    Content,
    ItemKind,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from engine.response.turn import TurnRules
from engine.upstream.calls import CallQueue, Key
from engine.upstream.frames import Frame, Item, Problem, Response, read_frame, read_type
from engine.upstream.markup import MarkupHold

_NOTHING = "The model server ended the stream without a terminal event."


class Outcome(msgspec.Struct, frozen=True):
    """How a turn ended: by a terminal object (`error` None), or by a failure."""

    usage: Usage | None = None
    incomplete_reason: str | None = None
    error: EngineError | None = None


class ResponsesStream:
    """Reads one turn. `outcome` is None until the turn is over."""

    def __init__(self, rules: TurnRules) -> None:
        self.outcome: Outcome | None = None
        self._rules = rules
        self._hold = MarkupHold() if rules.tools else None
        self._calls = CallQueue(rules.allowed, None if rules.parallel else 1)
        self._open: tuple[ItemKind, Key] | None = None
        self._text_key: Key = ""
        self._seen: set[ItemKind] = set()
        self._texts: list[str] = []

    def receive(self, data: bytes) -> list[Content]:
        """Take one event's data; return the content in it. What is not understood is passed over."""
        if self.outcome is not None or data == b"[DONE]":
            return []
        try:
            frame = read_frame(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return self._unreadable(data, exc)
        if frame.error is not None and frame.response is None:
            return self._failed(frame)
        take = _EVENTS.get(frame.type)
        return [] if take is None else take(self, frame)

    @property
    def held(self) -> int:
        """Characters that were received and not let through yet (rule X5: the loop bounds them)."""
        return self._calls.held + (self._hold.size if self._hold is not None else 0)

    def _unreadable(self, data: bytes, why: Exception) -> list[Content]:
        """Fail the turn, unless the event is empty or none of those that are read."""
        if data.strip() in (b"", b"[DONE]"):
            return []
        kind = read_type(data)
        if kind is not None and kind not in _EVENTS:
            return []
        self._fail(f"The model server sent an event that is not valid: {why}.")
        return self._release_prose()

    def end(self) -> list[Content]:
        """Take the end of the stream: without a terminal event before it, the turn failed (rule R1)."""
        if self.outcome is not None:
            return []
        content = self._release_prose()
        self._fail(_NOTHING)
        return content

    # -- deltas ---------------------------------------------------------------------------------

    def _text_delta(self, frame: Frame) -> list[Content]:
        text = frame.delta or ""
        key = _key(frame)
        content: list[Content] = []
        if self._hold is not None:
            if key != self._text_key:
                content = self._flush()
            text = self._hold.feed(text)
        self._text_key = key
        if not text:
            return content
        return content + self._say(text, key, self._logprobs(frame.logprobs))

    def _logprobs(self, raw: msgspec.Raw) -> bytes:
        """Return an array in our own spelling: a server's may hold line ends, or be no array."""
        if not self._rules.logprobs:
            return b"[]"
        value = msgspec.json.decode(raw)
        return encode(value) if isinstance(value, list) else b"[]"

    def _flush(self) -> list[Content]:
        """Release what might have become markup: what follows it is no text, so it was prose (rule R8)."""
        if self._hold is None or not self._hold.tail:
            return []
        if self._open != ("message", self._text_key) and self._calls.running:
            # It would cut the arguments of a call in two; it comes behind them.
            return []
        return self._say(self._hold.take_tail(), self._text_key)

    def _say(self, text: str, key: Key, logprobs: bytes = b"[]") -> list[Content]:
        self._texts.append(text)
        return [*self._enter("message", key), TextDelta(text, logprobs)]

    def _refusal_delta(self, frame: Frame) -> list[Content]:
        if not frame.delta:
            return []
        return [*self._flush(), *self._enter("message", _key(frame)), RefusalDelta(frame.delta)]

    def _reasoning_delta(self, frame: Frame) -> list[Content]:
        if not frame.delta:
            return []
        return [*self._flush(), *self._enter("reasoning", _key(frame)), ReasoningDelta(frame.delta)]

    def _summary_delta(self, frame: Frame) -> list[Content]:
        if not frame.delta:
            return []
        return [*self._flush(), *self._enter("reasoning", _key(frame)), SummaryDelta(frame.delta)]

    def _arguments_delta(self, frame: Frame) -> list[Content]:
        flushed = self._flush()
        return flushed + self._call_content(self._calls.arguments(_key(frame), frame.delta or ""))

    def _arguments_done(self, frame: Frame) -> list[Content]:
        flushed = self._flush()
        return flushed + self._call_content(
            self._calls.end(_key(frame), frame.arguments, is_call=True)
        )

    def _enter(self, kind: ItemKind, key: Key) -> list[Content]:
        """Start an item where the kind changes or the server started another one of the kind."""
        if self._open == (kind, key):
            return []
        self._open = (kind, key)
        self._seen.add(kind)
        self._calls.interrupt()
        return [ItemStarted(kind)]

    def _call_content(self, content: list[Content]) -> list[Content]:
        if content:
            self._open = None
        return content

    # -- items ----------------------------------------------------------------------------------

    def _item_added(self, frame: Frame) -> list[Content]:
        item = frame.item
        if item is None or item.type != "function_call":
            return []
        flushed = self._flush()
        return flushed + self._call_content(
            self._calls.announce(_item_key(frame, item), item.name or "", item.arguments or "")
        )

    def _item_done(self, frame: Frame) -> list[Content]:
        item = frame.item
        if item is None:
            return []
        is_call = item.type == "function_call"
        key = _item_key(frame, item)
        flushed = self._flush()
        return flushed + self._call_content(self._calls.end(key, item.arguments, is_call=is_call))

    # -- the end --------------------------------------------------------------------------------

    def _completed(self, frame: Frame) -> list[Content]:
        return self.finish(frame.response or Response())

    def finish(self, response: Response, *, cut: bool = False) -> list[Content]:
        """Take the terminal object; return the content that the stream still owed."""
        if response.status in ("failed", "cancelled"):
            self._fail(_message(response.error) or "The model server reported a failure.")
            return self._release_prose()
        content = self._owed(response.output)
        details = response.incomplete_details
        reason = details.reason if details else None
        if cut or response.status == "incomplete":
            reason = reason or "max_output_tokens"
        self.outcome = Outcome(
            usage=response.usage.usage() if response.usage else None,
            incomplete_reason=reason if cut or response.status == "incomplete" else None,
        )
        return content

    def _incomplete(self, frame: Frame) -> list[Content]:
        return self.finish(frame.response or Response(), cut=True)

    def _failed(self, frame: Frame) -> list[Content]:
        problem = frame.error if frame.error is not None else frame.message
        if frame.response is not None:
            problem = frame.response.error
        self._fail(_message(problem) or "The model server reported a failure.")
        return self._release_prose()

    def _fail(self, message: str) -> None:
        self.outcome = Outcome(error=UpstreamFailed(message))

    def _owed(self, output: list[Item] | None) -> list[Content]:
        """Reconcile with the terminal output: text that was held, items that were never streamed."""
        items = output or []
        calls = [(i.name or "", i.arguments or "") for i in items if i.type == "function_call"]
        content: list[Content] = []
        if self._hold is not None and calls and self._hold.found:
            self._hold.drop()
        content += self._release()
        streamed = frozenset(self._seen)
        for place, item in enumerate(items):
            content += self._unseen(item, f"terminal {place}", streamed)
        content += self._call_content(self._calls.settle(None if output is None else calls))
        return content

    def _unseen(self, item: Item, key: Key, streamed: frozenset[ItemKind]) -> list[Content]:
        """Return what the terminal object has of an item whose kind was never streamed."""
        if item.type == "reasoning" and "reasoning" not in streamed:
            return self._unseen_reasoning(item, key)
        if item.type != "message":
            return []
        if "message" not in streamed:
            return self._unseen_message(item, key)
        said = "".join(part.text or "" for part in item.content or ())
        before = "".join(self._texts)
        if before and said.startswith(before) and len(said) > len(before):
            # Text that followed markup which was calls after all.
            return self._say(said[len(before) :], self._message_key(key))
        return []

    def _unseen_message(self, item: Item, key: Key) -> list[Content]:
        content: list[Content] = []
        for part in item.content or ():
            if part.text:
                content += self._say(part.text, key, self._logprobs(part.logprobs))
            if part.refusal:
                content += [*self._enter("message", key), RefusalDelta(part.refusal)]
        return content

    def _unseen_reasoning(self, item: Item, key: Key) -> list[Content]:
        content: list[Content] = []
        for part in item.content or ():
            if part.text:
                content += [*self._enter("reasoning", key), ReasoningDelta(part.text)]
        for part in item.summary or ():
            if part.text:
                content += [*self._enter("reasoning", key), SummaryDelta(part.text)]
        return content

    def _release(self) -> list[Content]:
        text = self._hold.release() if self._hold is not None else ""
        if not text:
            return []
        return self._say(text, self._message_key("held"))

    def _message_key(self, otherwise: Key) -> Key:
        """Return the key of the message that is open, which more text continues."""
        return self._open[1] if self._open and self._open[0] == "message" else otherwise

    def _release_prose(self) -> list[Content]:
        """Release what is held unless it is markup: a call that failed is no text (rule R8)."""
        if self._hold is not None and self._hold.found:
            self._hold.drop()
        return self._release()


def _key(frame: Frame) -> Key:
    if frame.item_id is not None:
        return frame.item_id
    return frame.output_index if frame.output_index is not None else ""


def _item_key(frame: Frame, item: Item) -> Key:
    if item.id is not None:
        return item.id
    return frame.output_index if frame.output_index is not None else ""


def _message(problem: Problem | str | None) -> str | None:
    return problem.message if isinstance(problem, Problem) else problem


_EVENTS = {
    "response.output_text.delta": ResponsesStream._text_delta,
    "response.refusal.delta": ResponsesStream._refusal_delta,
    "response.reasoning_text.delta": ResponsesStream._reasoning_delta,
    "response.reasoning.delta": ResponsesStream._reasoning_delta,
    "response.reasoning_summary_text.delta": ResponsesStream._summary_delta,
    "response.function_call_arguments.delta": ResponsesStream._arguments_delta,
    "response.function_call_arguments.done": ResponsesStream._arguments_done,
    "response.output_item.added": ResponsesStream._item_added,
    "response.output_item.done": ResponsesStream._item_done,
    "response.completed": ResponsesStream._completed,
    "response.incomplete": ResponsesStream._incomplete,
    "response.failed": ResponsesStream._failed,
    "error": ResponsesStream._failed,
}
