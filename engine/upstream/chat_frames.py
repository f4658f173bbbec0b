"""What is read of a `/v1/chat/completions` answer: a few typed fields, all else skipped unparsed.

Servers agree on little but the outline: whatever may be missing, null or of another kind is so here.
"""

from __future__ import annotations

import msgspec

from engine.api.response_object import Usage
from engine.upstream.frames import Arguments, Problem, decoded


class Thinking(msgspec.Struct):
    """A part of a thought in a list (Mistral)."""

    text: str | None = None


class ContentPart(msgspec.Struct):
    """A part of a message whose content is a list."""

    type: str = ""
    text: str | None = None
    thinking: list[Thinking] | str | None = None


class Function(msgspec.Struct):
    """The function of a call, or more of its arguments."""

    name: str | None = None
    arguments: Arguments = None


class ToolCall(msgspec.Struct):
    """A call, or more of one; `index` and `id` are missing or wrong as often as not."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(msgspec.Struct):
    """A delta, or a whole message."""

    content: str | list[ContentPart] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None
    """The form from before there were tool calls."""


class Choice(msgspec.Struct):
    """One of the answers; only the first is read."""

    index: int | None = None
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    error: Problem | str | None = None


class PromptDetails(msgspec.Struct):
    """The details of the prompt's tokens."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """The details of the answer's tokens."""

    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    """A usage object; some servers have the details at its top level."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    reasoning_tokens: int | None = None

    def usage(self) -> Usage:
        """Return the counts that are used; a missing one is zero."""
        read, written = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            input_tokens=self.prompt_tokens or 0,
            cached_tokens=(read.cached_tokens if read else None)
            or self.prompt_cache_hit_tokens
            or 0,
            output_tokens=self.completion_tokens or 0,
            reasoning_tokens=(written.reasoning_tokens if written else None)
            or self.reasoning_tokens
            or 0,
        )


class Chunk(msgspec.Struct):
    """One event of a stream, or the whole answer."""

    choices: list[Choice] | None = None
    usage: ChatUsage | None = None
    error: Problem | str | None = None
    object: str | None = None
    message: str | None = None
    """Servers that put an error's fields at the top."""
    code: str | int | None = None


_chunk = msgspec.json.Decoder(Chunk)


def read_chunk(data: bytes) -> Chunk:
    """Decode one event's data, or a whole answer; raises msgspec.DecodeError or UnicodeDecodeError."""
    return decoded(_chunk, data)
