"""A `/v1/chat/completions` stream, of any server, as the content inputs of the machine (rules R5-R9).

There is no terminal object: the turn is over with `[DONE]`, or with the end of the stream if a finish
reason came before it. What a finish reason says of calls is not believed, only that there is one.
"""

from __future__ import annotations

import msgspec

from engine.api.response_object import Usage
from engine.errors import UpstreamFailed
from engine.response.inputs import Content
from engine.response.turn import TurnRules
from engine.upstream.care import Made
from engine.upstream.chat_calls import ChatCalls
from engine.upstream.chat_frames import Choice, Chunk, ContentPart, Message, ToolCall, read_chunk
from engine.upstream.frames import Problem
from engine.upstream.logprobs import NONE, chat_logprobs
from engine.upstream.refusal import stream_failure
from engine.upstream.rules import Outcome
from engine.upstream.thinking import ThinkSplit
from engine.upstream.turn import Turn

_NOTHING = "The model server ended the stream without a finish reason."
_KEY = "chat"
# Finish reasons that are a limit, a filter, a failure; every other one is an end as it should be.
_CUT = {
    "length": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "model_length": "max_output_tokens",
    "content_filter": "content_filter",
}
_FAILED = ("error", "abort", "cancelled", "insufficient_system_resource")


class ChatStream:
    """Reads one turn. `outcome` is None until the turn is over."""

    def __init__(self, rules: TurnRules) -> None:
        self._turn = Turn(rules)
        self._calls = ChatCalls(self._turn)
        self._think = ThinkSplit()
        self._logprobs = rules.logprobs
        self._usage: Usage | None = None
        self._reason: str | None = None
        self._came = False

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
        return self._turn.held + self._calls.held + self._think.size

    def receive(self, data: bytes) -> list[Content]:
        """Take one event's data; return the content in it. What is not understood is passed over."""
        if self._turn.outcome is not None:
            return []
        if data.strip() in (b"", b"[DONE]"):
            return self._close(_NOTHING) if data.strip() and self._came else []
        try:
            chunk = read_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self._turn.repairs.add("event_invalid")
            message = f"The model server sent an event that is not valid: {exc}."
            return self._turn.fail(UpstreamFailed(message))
        problem = _problem(chunk)
        if problem is not None:
            return self._turn.fail(stream_failure(problem))
        if chunk.usage is not None:
            self._usage = chunk.usage.usage()
        return self._choice(chunk.choices[0]) if chunk.choices else []

    def receive_whole(self, body: bytes) -> list[Content]:
        """Take an answer that is no stream; raises UpstreamFailed where it is no completion."""
        try:
            chunk = read_chunk(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UpstreamFailed(f"The model server's answer is not valid: {exc}.") from exc
        problem = _problem(chunk)
        if problem is None and not chunk.choices:
            raise UpstreamFailed("The model server's answer is not valid: it is no completion.")
        self._turn.repairs.add("not_streamed")
        return self.receive(body) + self._close("The model server's answer has no message.")

    def end(self) -> list[Content]:
        """Take the end of the stream: without a finish reason before it, the turn failed (rule R1)."""
        if self._turn.outcome is not None:
            return []
        if self._reason is None:
            self._turn.repairs.add("stream_unfinished")
            return self._split_end() + self._turn.fail(UpstreamFailed(_NOTHING))
        return self._close(_NOTHING)

    # -- content --------------------------------------------------------------------------------

    def _choice(self, choice: Choice) -> list[Content]:
        self._came = True
        if choice.index:
            # Only one answer is ever asked for.
            return []
        message = choice.delta if choice.delta is not None else choice.message
        content = self._message(message, choice) if message is not None else []
        reason = choice.finish_reason
        if reason in _FAILED:
            told = f"The model server ended the answer with '{reason}'."
            return content + self._split_end() + self._turn.fail(UpstreamFailed(told))
        self._reason = reason or self._reason
        return content

    def _message(self, message: Message, choice: Choice) -> list[Content]:
        """Take a delta: one may carry thought, text and calls, in this order."""
        content: list[Content] = []
        thought = message.reasoning or message.reasoning_content
        if thought:
            content += self._turn.reasoning(thought, _KEY)
        if message.content:
            content += self._said(message.content, choice)
        if message.refusal:
            content += self._turn.refusal(message.refusal, _KEY)
        if message.tool_calls:
            content += self._split_end()
            for call in message.tool_calls:
                content += self._calls.receive(call)
        if message.function_call is not None:
            content += self._split_end() + self._calls.receive(
                ToolCall(0, None, message.function_call)
            )
        return content

    def _said(self, said: str | list[ContentPart], choice: Choice) -> list[Content]:
        logprobs = chat_logprobs(choice.logprobs) if self._logprobs else NONE
        if isinstance(said, str):
            thought, text = self._think.feed(said)
            return self._split(thought, text, logprobs)
        content: list[Content] = []
        for part in said:
            thought, text = _part(part)
            content += self._split(thought, text, logprobs)
            logprobs = NONE
        return content

    def _split(self, thought: str, text: str, logprobs: bytes) -> list[Content]:
        content = self._turn.reasoning(thought, _KEY)
        if not text and (thought or logprobs == NONE):
            return content
        return content + self._turn.text(text, _KEY, logprobs)

    def _split_end(self) -> list[Content]:
        """Let go of what might have been the start or the end of a thought."""
        thought, text = self._think.end()
        return self._split(thought, text, NONE)

    # -- the end --------------------------------------------------------------------------------

    def _close(self, otherwise: str) -> list[Content]:
        """End the turn; fail it with `otherwise` if there was no answer at all."""
        if self._turn.outcome is not None:
            return []
        if not self._came:
            return self._turn.fail(UpstreamFailed(otherwise))
        cut = _CUT.get(self._reason or "")
        content = self._split_end() + self._turn.release(None, cut=cut is not None)
        content += self._turn.settle(None)
        self._turn.outcome = Outcome(usage=self._usage, incomplete_reason=cut)
        return content


def _problem(chunk: Chunk) -> Problem | str | None:
    """Return the error that a chunk reports; its status was 200 all the same."""
    if chunk.error is not None:
        return chunk.error
    if chunk.choices and chunk.choices[0].error is not None:
        return chunk.choices[0].error
    if chunk.choices is None and chunk.message is not None:
        return Problem(message=chunk.message, code=chunk.code)
    return None


def _part(part: ContentPart) -> tuple[str, str]:
    """Return the thought and the text of a part."""
    if part.type != "thinking":
        return "", part.text or ""
    thinking = part.thinking or ()
    if isinstance(thinking, str):
        return thinking, ""
    return "".join(entry.text or "" for entry in thinking), ""
