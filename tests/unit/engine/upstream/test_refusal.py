"""`engine.upstream.refusal`: a server's error answer as an error of ours (R15)."""

from __future__ import annotations

import pytest

from engine.errors import UpstreamFailed, UpstreamRefused
from engine.upstream.refusal import refusal

OPENAI = (
    b'{"error":{"message":"too long","type":"invalid_request_error","param":"input","code":400}}'
)


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (OPENAI, "too long", "input"),
        (b'{"error":{"message":"m","param":7}}', "m", None),
        (b'{"error":"just text"}', "just text", None),
        (b'{"message":"top level","code":"x"}', "top level", None),
        (b'{"detail":"Not Found"}', "Not Found", None),
        (b'{"detail":[{"loc":["body"],"msg":"Field required"}]}', "Field required", None),
        (b"Internal oops", "Internal oops", None),
        (b'{"error":{"message":"cut off he', "cut off he", None),
        (b"<html><h1>502</h1></html>", "The model server refused the request (400).", None),
        (b"", "The model server refused the request (400).", None),
        (b"{}", "The model server refused the request (400).", None),
        (b'{"detail":[]}', "The model server refused the request (400).", None),
        (b'{"error":null,"detail":null}', "The model server refused the request (400).", None),
        (b"[1,2]", "The model server refused the request (400).", None),
        (b"\xff\xfe", "��", None),
    ],
)
def test_the_message_is_found_in_every_form(body: bytes, message: str, param: str | None) -> None:
    """OpenAI's, FastAPI's, plain text, a page, nothing, cut anywhere."""
    error = refusal(400, body, None)
    assert (type(error), error.status) == (UpstreamRefused, 400)
    assert (error.message, error.param) == (message, param)


@pytest.mark.parametrize(
    ("status", "kind", "ours"),
    [
        (400, UpstreamRefused, 400),
        (404, UpstreamRefused, 404),
        (413, UpstreamRefused, 413),
        (429, UpstreamRefused, 429),
        (401, UpstreamFailed, 502),
        (403, UpstreamFailed, 502),
        (500, UpstreamFailed, 500),
        (503, UpstreamFailed, 503),
        (204, UpstreamFailed, 502),
        (307, UpstreamFailed, 502),
    ],
)
def test_a_status_becomes_ours(status: int, kind: type, ours: int) -> None:
    """R16: but a redirect or a refusal of the gateway's own credentials is not the client's affair."""
    error = refusal(status, OPENAI, 3)
    assert (type(error), error.status) == (kind, ours)
    assert error.retry_after == (None if status in (401, 403) else 3)


def test_credentials_are_not_told_of() -> None:
    """X4: a server's words about the gateway's key stay here."""
    assert "sk-secret" not in refusal(401, b'{"error":"bad key sk-secret"}', None).message


def test_too_many_requests_have_the_code_that_clients_know() -> None:
    """R12: it also stands in a failed response."""
    assert refusal(429, b"", None).code == "rate_limit_exceeded"


def test_no_cut_breaks_it() -> None:
    """R15: a body is read up to a bound, which falls anywhere."""
    for size in range(len(OPENAI)):
        assert refusal(400, OPENAI[:size], None).status == 400
    assert refusal(400, b"[" * 100_000, None).status == 400


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_clients_own_credentials_is_the_clients_to_see(status: int) -> None:
    """R16: where its Authorization was forwarded, the client can mend it."""
    error = refusal(status, OPENAI, None, clients_credentials=True)
    assert (type(error), error.status) == (UpstreamRefused, status)
