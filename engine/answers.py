"""Whole HTTP answers, as the engine gives them to whichever adapter carries them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.api.error import error_body
from engine.errors import EngineError, MethodNotAllowed, RangeRefused, Unauthenticated


class Answer(msgspec.Struct, frozen=True):
    """A status, headers beside the content type, and a JSON body."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


def error_answer(error: EngineError) -> Answer:
    """Return the answer that tells a client of an error (rule R15)."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if not error.repeatable:
        headers["x-should-retry"] = "false"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, RangeRefused):
        headers["content-range"] = f"bytes */{error.size}"
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return Answer(error.status, error_body(error), headers)
