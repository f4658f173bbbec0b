"""The error object: as an HTTP body, as the `error` of a response, as a stream event (rules R12, R15)."""

from __future__ import annotations

from engine.api.json import encode
from engine.errors import EngineError

# A backend's message may be megabytes of validation errors.
MESSAGE_LIMIT = 2000


def error_object(error: EngineError) -> dict[str, object]:
    """Return `{message, type, param, code}`, the message capped."""
    message = error.message
    if len(message) > MESSAGE_LIMIT:
        message = message[:MESSAGE_LIMIT] + "… (cut)"
    return {"message": message, "type": error.type, "param": error.param, "code": error.code}


def error_body(error: EngineError) -> bytes:
    """Return the body of an HTTP error."""
    return encode({"error": error_object(error)})


def response_error(error: EngineError) -> dict[str, object]:
    """Return the `error` of a failed response; its code is one that clients know."""
    shown = error_object(error)
    code = shown["code"] if shown["code"] in _RESPONSE_CODES else "server_error"
    return {"code": code, "message": shown["message"]}


_RESPONSE_CODES = (
    "server_error",
    "rate_limit_exceeded",
    "invalid_prompt",
    "context_length_exceeded",
)


def stream_error(error: EngineError) -> bytes:
    """Return the fields of an `error` event without type and number, in its flat and nested form.

    The OpenAI SDK reads the nested form (and raises), other clients the flat one.
    """
    shown = error_object(error)
    flat = {"code": shown["code"], "message": shown["message"], "param": shown["param"]}
    return encode({**flat, "error": shown})[1:-1]
