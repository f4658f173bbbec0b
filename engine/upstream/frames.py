"""What is read of a model server's event: a few typed fields, all else skipped unparsed.

Unknown and missing fields are the rule, not the exception: everything has a default.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from engine.api.json import encode
from engine.api.response_object import Usage

T = TypeVar("T")

Arguments = str | dict[str, object] | None
"""A call's arguments: JSON in a string, or, from servers that forgot so, the object itself."""


def arguments_text(arguments: Arguments) -> str:
    """Return the JSON text of a call's arguments, empty where there are none."""
    return encode(arguments).decode() if isinstance(arguments, dict) else arguments or ""


class Item(msgspec.Struct):
    """An output item, as far as it is used."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    arguments: Arguments = None
    content: list[Part] | None = None
    summary: list[Part] | None = None


class Part(msgspec.Struct):
    """A content or summary part."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class TokenDetails(msgspec.Struct):
    """The details of a token count."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class UsageFrame(msgspec.Struct):
    """A usage object."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: TokenDetails | None = None
    output_tokens_details: TokenDetails | None = None

    def usage(self) -> Usage:
        """Return the counts that are used; a missing one is zero."""
        read, written = self.input_tokens_details, self.output_tokens_details
        return Usage(
            input_tokens=self.input_tokens or 0,
            cached_tokens=(read.cached_tokens if read else None) or 0,
            output_tokens=self.output_tokens or 0,
            reasoning_tokens=(written.reasoning_tokens if written else None) or 0,
        )


class IncompleteDetails(msgspec.Struct):
    """Why a response was cut."""

    reason: str | None = None


class Problem(msgspec.Struct):
    """An error object; servers differ in all of its types."""

    message: str | None = None
    type: str | int | None = None
    code: str | int | None = None


class Response(msgspec.Struct):
    """A response object, as far as it is used."""

    status: str | None = None
    output: list[Item] | None = None
    usage: UsageFrame | None = None
    incomplete_details: IncompleteDetails | None = None
    error: Problem | None = None


class Frame(msgspec.Struct):
    """One event of a `/v1/responses` stream."""

    type: str = ""
    delta: str | None = None
    item_id: str | None = None
    output_index: int | None = None
    arguments: Arguments = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    item: Item | None = None
    response: Response | None = None
    error: Problem | str | None = None
    message: str | None = None
    code: str | int | None = None


_frame = msgspec.json.Decoder(Frame)
_response = msgspec.json.Decoder(Response)


def read_frame(data: bytes) -> Frame:
    """Decode one event's data; raises msgspec.DecodeError or UnicodeDecodeError."""
    return decoded(_frame, data)


def decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode what a server sent; raises msgspec.DecodeError or UnicodeDecodeError."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except RecursionError as exc:
        raise msgspec.DecodeError("it is nested too deeply") from exc
    except msgspec.DecodeError:
        return decoder.decode(_without_lone_surrogates(data))


class _Typed(msgspec.Struct):
    type: str = ""


def read_type(data: bytes) -> str | None:
    """Return the type of an event that cannot be read otherwise; None where not even that can."""
    try:
        return msgspec.json.decode(data, type=_Typed).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_response(data: bytes) -> Response:
    """Decode a whole response object; raises msgspec.DecodeError or UnicodeDecodeError.

    Any other object (an error inside a 200, a chat completion) would read as an empty answer.
    """
    response = decoded(_response, data)
    if response.status is None and response.output is None:
        problem = response.error.message if response.error else None
        raise msgspec.DecodeError(problem or "it is no response object")
    return response


def _without_lone_surrogates(data: bytes) -> bytes:
    """Return the JSON with escapes of lone surrogates replaced: no UTF-8 can carry them."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
