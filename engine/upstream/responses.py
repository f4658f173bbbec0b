"""A `/v1/responses` stream, of any server and release, as the content inputs of the machine (rules R5-R9).

Lifecycle events, ids, indexes and sequence numbers of the server are not believed: it is read as deltas
plus one terminal object. What the deltas left out or got wrong, the terminal object supplies; what was
already let through is never taken back.
"""

from __future__ import annotations

import msgspec

from engine.api.response_object import Usage
from engine.errors import UpstreamFailed
from engine.response.inputs import Content, ItemKind
from engine.response.turn import TurnRules
from engine.upstream.calls import Key
from engine.upstream.care import Made
from engine.upstream.frames import (
    Frame,
    Item,
    Problem,
    Response,
    arguments_text,
    read_frame,
    read_response,
    read_type,
)
from engine.upstream.logprobs import NONE, token_logprobs
from engine.upstream.passing import Passing
from engine.upstream.refusal import stream_failure
from engine.upstream.rules import Outcome
from engine.upstream.turn import Turn

__all__ = ["Outcome", "ResponsesStream"]

_NOTHING = "The model server ended the stream without a terminal event."


class ResponsesStream:
    """Reads one turn. `outcome` is None until the turn is over."""

    def __init__(self, rules: TurnRules) -> None:
        self._turn = Turn(rules)
        self._most = rules.max_tokens
        self._logprobs = rules.logprobs
        self._passing = Passing() if rules.upstream else None

    @property
    def outcome(self) -> Outcome | None:
        """How the turn ended."""
        return self._turn.outcome

    @property
    def made(self) -> Made:
        """What was let through."""
        return self._turn.made

    @property
    def held(self) -> int:
        """Characters that were received and not let through yet (rule X5: the loop bounds them)."""
        return self._turn.held

    def receive(self, data: bytes) -> list[Content]:
        """Take one event's data; return the content in it. What is not understood is passed over."""
        if self._turn.outcome is not None or data == b"[DONE]":
            return []
        passed: list[Content] | None = None
        try:
            frame = read_frame(data)
            if self._passing is not None:
                passed = self._passing.receive(frame.type, data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return self._unreadable(data, exc)
        if passed is not None:
            return self._turn.aside(passed)
        if frame.error is not None and frame.response is None:
            return self._failed(frame)
        take = _EVENTS.get(frame.type)
        return [] if take is None else take(self, frame)

    def receive_whole(self, body: bytes) -> list[Content]:
        """Take an answer that is no stream; raises UpstreamFailed where it is no response object."""
        try:
            response = read_response(body)
            if self._passing is not None:
                self._passing.take_whole(msgspec.json.decode(body))
            return self._finish_whole(response)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UpstreamFailed(f"The model server's answer is not valid: {exc}.") from exc

    def _finish_whole(self, response: Response) -> list[Content]:
        content = self.finish(response)
        # What no stream told is not missing from one.
        self._turn.repairs -= {"calls_unstreamed", "output_unstreamed"}
        self._turn.repairs.add("not_streamed")
        return content

    def end(self) -> list[Content]:
        """Take the end of the stream: without a terminal event before it, the turn failed (rule R1)."""
        if self._turn.outcome is not None:
            return []
        self._turn.repairs.add("stream_unfinished")
        return self._turn.fail(UpstreamFailed(_NOTHING, passing=True))

    def _unreadable(self, data: bytes, why: Exception) -> list[Content]:
        """Fail the turn, unless the event is empty or none of those that are read."""
        if data.strip() in (b"", b"[DONE]"):
            return []
        kind = read_type(data)
        if kind is not None and kind not in _EVENTS:
            return []
        self._turn.repairs.add("event_invalid")
        message = f"The model server sent an event that is not valid: {why}."
        return self._turn.fail(UpstreamFailed(message))

    # -- deltas ---------------------------------------------------------------------------------

    def _text_delta(self, frame: Frame) -> list[Content]:
        logprobs = token_logprobs(frame.logprobs) if self._logprobs else NONE
        return self._turn.text(frame.delta or "", _key(frame), logprobs)

    def _refusal_delta(self, frame: Frame) -> list[Content]:
        return self._turn.refusal(frame.delta or "", _key(frame))

    def _reasoning_delta(self, frame: Frame) -> list[Content]:
        return self._turn.reasoning(frame.delta or "", _key(frame))

    def _summary_delta(self, frame: Frame) -> list[Content]:
        return self._turn.summary(frame.delta or "", _key(frame))

    def _arguments_delta(self, frame: Frame) -> list[Content]:
        return self._turn.arguments(_key(frame), frame.delta or "")

    def _arguments_done(self, frame: Frame) -> list[Content]:
        arguments = arguments_text(frame.arguments)
        return self._turn.end_item(_key(frame), arguments, is_call=True)

    # -- items ----------------------------------------------------------------------------------

    def _item_added(self, frame: Frame) -> list[Content]:
        item = frame.item
        if item is None or item.type != "function_call":
            return []
        arguments = arguments_text(item.arguments)
        return self._turn.announce(_item_key(frame, item), item.name or "", arguments)

    def _item_done(self, frame: Frame) -> list[Content]:
        item = frame.item
        if item is None:
            return []
        is_call = item.type == "function_call"
        arguments = arguments_text(item.arguments)
        return self._turn.end_item(_item_key(frame, item), arguments, is_call=is_call)

    # -- the end --------------------------------------------------------------------------------

    def _completed(self, frame: Frame) -> list[Content]:
        return self.finish(frame.response or Response())

    def finish(self, response: Response, *, cut: bool = False) -> list[Content]:
        """Take the terminal object; return the content that the stream still owed."""
        if response.status in ("failed", "cancelled"):
            return self._turn.fail(stream_failure(response.error))
        usage = response.usage.usage() if response.usage else None
        cut = cut or response.status == "incomplete"
        if not cut and self._is_full(usage):
            cut = True
            self._turn.repairs.add("cut_untold")
        content = self._owed(response.output, cut=cut)
        details = response.incomplete_details
        reason = (details.reason if details else None) or "max_output_tokens"
        self._turn.outcome = Outcome(usage=usage, incomplete_reason=reason if cut else None)
        return content

    def _is_full(self, usage: Usage | None) -> bool:
        return self._most is not None and usage is not None and usage.output_tokens >= self._most

    def _incomplete(self, frame: Frame) -> list[Content]:
        return self.finish(frame.response or Response(), cut=True)

    def _failed(self, frame: Frame) -> list[Content]:
        if frame.response is not None:
            return self._turn.fail(stream_failure(frame.response.error))
        told = frame.error
        if told is None:
            told = Problem(message=frame.message, code=frame.code)
        return self._turn.fail(stream_failure(told))

    def _owed(self, output: list[Item] | None, *, cut: bool) -> list[Content]:
        """Reconcile with the terminal output: text that was held, items that were never streamed."""
        items = output or []
        calls = [
            (item.name or "", arguments_text(item.arguments))
            for item in items
            if item.type == "function_call"
        ]
        content = self._turn.release(calls, cut=cut)
        streamed = frozenset(self._turn.seen)
        for place, item in enumerate(items):
            unseen = self._unseen(item, f"terminal {place}", streamed, parsed=bool(calls))
            if unseen:
                self._turn.repairs.add("output_unstreamed")
            content += unseen
            if self._passing is not None:
                content += self._turn.aside(self._passing.owed(place))
        # Text that was never streamed may be calls too, where the server has no parser for them.
        content += self._turn.release(calls, cut=cut)
        return content + self._turn.settle(None if output is None else calls)

    def _unseen(
        self, item: Item, key: Key, streamed: frozenset[ItemKind], *, parsed: bool
    ) -> list[Content]:
        """Return what the terminal object has of an item whose kind was never streamed."""
        if item.type == "reasoning" and "reasoning" not in streamed:
            return self._unseen_reasoning(item, key)
        if item.type != "message" or self._turn.recovered:
            return []
        if "message" not in streamed:
            return self._unseen_message(item, key, parsed=parsed)
        said = "".join(part.text or "" for part in item.content or ())
        before = self._turn.said
        if before and said.startswith(before) and len(said) > len(before):
            # Text that followed markup which was calls after all.
            return self._turn.say(said[len(before) :], self._turn.message_key(key))
        return []

    def _unseen_message(self, item: Item, key: Key, *, parsed: bool) -> list[Content]:
        """`parsed`: the server has told calls and text apart; else the text may be calls."""
        content: list[Content] = []
        for part in item.content or ():
            if part.text:
                logprobs = token_logprobs(part.logprobs) if self._logprobs else NONE
                take = self._turn.say if parsed else self._turn.text
                content += take(part.text, key, logprobs)
            if part.refusal:
                content += self._turn.refusal(part.refusal, key)
        return content

    def _unseen_reasoning(self, item: Item, key: Key) -> list[Content]:
        content: list[Content] = []
        for part in item.content or ():
            content += self._turn.reasoning(part.text or "", key)
        for part in item.summary or ():
            content += self._turn.summary(part.text or "", key)
        return content


def _key(frame: Frame) -> Key:
    if frame.item_id is not None:
        return frame.item_id
    return frame.output_index if frame.output_index is not None else ""


def _item_key(frame: Frame, item: Item) -> Key:
    if item.id is not None:
        return item.id
    return frame.output_index if frame.output_index is not None else ""


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
