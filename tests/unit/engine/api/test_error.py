"""`engine.api.error` and `engine.errors`: errors as bodies, as fields of responses, as events."""

from __future__ import annotations

import json

import pytest

from engine.api.error import error_body, response_error, stream_error
from engine.errors import (
    Conflict,
    EngineError,
    InvalidRequest,
    LeaseLost,
    MethodNotAllowed,
    NotFound,
    Stopped,
    StorageUnavailable,
    TooLarge,
    UnknownPreviousResponse,
    UnsupportedMedia,
    UpstreamFailed,
    UpstreamRefused,
)

ERRORS: list[tuple[EngineError, int, str, str | None]] = [
    (EngineError("m"), 500, "server_error", None),
    (InvalidRequest("m"), 400, "invalid_request_error", None),
    (UnknownPreviousResponse("r"), 400, "invalid_request_error", "previous_response_not_found"),
    (NotFound("m"), 404, "invalid_request_error", "not_found"),
    (MethodNotAllowed("m", ["GET"]), 405, "invalid_request_error", "method_not_allowed"),
    (Conflict("m"), 409, "invalid_request_error", "conflict"),
    (TooLarge("m"), 413, "invalid_request_error", "request_too_large"),
    (UnsupportedMedia("m"), 415, "invalid_request_error", "unsupported_media_type"),
    (UpstreamRefused(422, "m"), 422, "invalid_request_error", None),
    (UpstreamFailed("m"), 502, "server_error", "server_error"),
    (UpstreamFailed("m", status=503), 503, "server_error", "server_error"),
    (Stopped(), 503, "server_error", "server_error"),
    (StorageUnavailable("m"), 503, "server_error", "storage_unavailable"),
    (LeaseLost("m"), 500, "server_error", "lease_lost"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), ERRORS, ids=lambda v: repr(v)[:30])
def test_an_error_is_a_status_and_a_body_of_four_fields(
    error: EngineError, status: int, kind: str, code: str | None
) -> None:
    """R15."""
    assert error.status == status
    shown = json.loads(error_body(error))["error"]
    assert list(shown) == ["message", "type", "param", "code"]
    assert (shown["type"], shown["code"]) == (kind, code)


def test_a_code_can_be_given() -> None:
    """And a param."""
    shown = json.loads(error_body(InvalidRequest("m", param="p", code="c")))["error"]
    assert shown == {"message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}


def test_a_message_is_capped() -> None:
    """R15: a server's may be megabytes of validation errors."""
    shown = json.loads(error_body(UpstreamFailed("x" * 1_000_000)))["error"]
    assert 2000 <= len(shown["message"]) <= 2010


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("context_length_exceeded", "context_length_exceeded"),
        ("storage_unavailable", "server_error"),
        (None, "server_error"),
    ],
)
def test_a_failed_response_has_a_code_that_clients_know(code: str | None, shown: str) -> None:
    """The API's list is closed."""
    error = response_error(UpstreamRefused(400, "m", code=code))
    assert error == {"code": shown, "message": "m"}


def test_an_error_event_has_both_forms() -> None:
    """R12: the SDK reads the nested one, other clients the flat one."""
    fields = json.loads(b"{" + stream_error(InvalidRequest("m", param="p", code="c")) + b"}")
    flat = {"code": "c", "message": "m", "param": "p"}
    assert fields == {**flat, "error": {**flat, "type": "invalid_request_error"}}
