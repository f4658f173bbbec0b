"""The response object: all 31 fields of the Open Responses schema, the request echoed (rule R10).

The object is handled in two parts, because its output is stored as items: the *head*, a JSON object of
everything but `output`, and the output items, each JSON of its own. `join` puts them together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from engine.api.json import encode
from engine.api.request import CreateRequest

# Values of fields that the client left out; none of these may be null in the object.
_DEFAULTS: Mapping[str, object] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "presence_penalty": 0.0,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one or more turns; None where the server did not say."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return the sum over two turns."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def shown(self) -> dict[str, object]:
        """Return the API's `usage`; totals are sums, never a server's own figure."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in a response object while it runs."""

    status: str
    completed_at: int | None = None
    error: dict[str, object] | None = None
    incomplete_reason: str | None = None
    usage: Usage | None = None


# What `State` says, in the order of the object.
_VARYING = ("status", "completed_at", "error", "incomplete_details", "usage")
_read_head = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ResponseObject:
    """The head of one response, its constant part encoded once."""

    def __init__(self, response_id: str, created_at: int, request: CreateRequest) -> None:
        self.created_at = created_at
        constant = {"id": response_id, "object": "response", "created_at": created_at}
        self._constant = encode({**constant, **_echo(request)})[:-1]

    @classmethod
    def of_head(cls, head: bytes) -> ResponseObject:
        """Return the object whose head this is, in whatever state."""
        fields = _read_head(head)
        made = cls.__new__(cls)
        made.created_at = int(bytes(fields["created_at"]))
        constant = {name: value for name, value in fields.items() if name not in _VARYING}
        made._constant = encode(constant)[:-1]
        return made

    def head(self, state: State) -> bytes:
        """Return the JSON of the object without its output."""
        reason = state.incomplete_reason
        values = (
            state.status,
            state.completed_at,
            state.error,
            None if reason is None else {"reason": reason},
            None if state.usage is None else state.usage.shown(),
        )
        varying = dict(zip(_VARYING, values, strict=True))
        return b"%b,%b" % (self._constant, encode(varying)[1:])


def join(head: bytes, output: Iterable[bytes]) -> bytes:
    """Return the whole response object."""
    return b'%b,"output":[%b]}' % (head[:-1], b",".join(output))


def _echo(request: CreateRequest) -> dict[str, object]:
    values = request.values
    echo = {name: values.get(name, default) for name, default in _DEFAULTS.items()}
    if request.conversation is not None:
        echo["conversation"] = {"id": request.conversation}
    echo["model"] = request.model
    echo["parallel_tool_calls"] = request.parallel_tool_calls
    echo["previous_response_id"] = request.previous_response_id
    if "prompt" in values:
        echo["prompt"] = values["prompt"]
    echo["reasoning"] = _reasoning(values.get("reasoning"))
    echo["service_tier"] = "default"
    echo["store"] = request.store
    echo["text"] = _text(values.get("text"))
    echo["tool_choice"] = request.tool_choice.shown
    echo["tools"] = [tool.shown() for tool in request.tools]
    return echo


def _reasoning(asked: object) -> dict[str, object] | None:
    if not isinstance(asked, dict):
        return None
    return {"effort": asked.get("effort"), "summary": asked.get("summary")}


def _text(asked: object) -> dict[str, object]:
    text = dict(asked) if isinstance(asked, dict) else {}
    text.setdefault("format", {"type": "text"})
    return text
