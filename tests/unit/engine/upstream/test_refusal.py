"""`engine.upstream.refusal`: a server's error answer as an error of ours (R15)."""

from __future__ import annotations

import pytest
from msgspec import convert
from msgspec.json import decode

from engine.api.error import response_error
from engine.api.json import encode
from engine.errors import UpstreamFailed, UpstreamRefused
from engine.upstream.frames import Problem
from engine.upstream.refusal import refusal, stream_failure

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


# -- a prompt that is longer than the context ----------------------------------------------------------

TOO_LONG = {
    "OpenAI": '{"error":{"message":"It is too long.","code":"context_length_exceeded"}}',
    "vLLM, responses": "The engine prompt length 9000 exceeds the max_model_len 8192. Please reduce prompt.",
    "vLLM, chat": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
    "vLLM, engine": "The decoder prompt (length 9000) is longer than the maximum model length of 8192.",
    "SGLang": "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
    "SGLang, sum": "Requested token count exceeds the model's maximum context length of 8192 tokens.",
    "llama.cpp": '{"error":{"code":400,"message":"too much","type":"exceed_context_size_error","n_ctx":256}}',
    "llama.cpp, words": "request (4390 tokens) exceeds the available context size (4096 tokens)",
    "llama.cpp, later": "Context size has been exceeded.",
    "llama-cpp-python": "Requested tokens (2285) exceed context window of 2048",
    "Ollama": "prompt too long; exceeded max context length by 12 tokens",
    "Ollama, input": "the input length exceeds the context length",
    "LM Studio": "Trying to keep the first 9 tokens when context the overflows. However, the model is loaded "
    "with context length of only 8 tokens, which is not enough.",
    "LM Studio, keep": "The number of tokens to keep is greater than the context length.",
    "LM Studio, n_keep": "Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)",
    "TGI": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.",
    "TGI, inputs": "Input validation error: `inputs` must have less than 1024 tokens. Given: 5000",
    "OpenRouter": "This endpoint's maximum context length is 128000 tokens. However, you requested 130000",
    "Mistral": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "Anthropic": "prompt is too long: 200001 tokens > 199999 maximum",
    "Google": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "LiteLLM": "litellm.ContextWindowExceededError: it failed",
}


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("server", TOO_LONG)
def test_a_prompt_that_is_too_long_is_known_in_every_servers_words(
    server: str, status: int
) -> None:
    """R15: clients shorten their history on this one code; trying again would not help."""
    told = TOO_LONG[server]
    body = told.encode() if told.startswith("{") else encode({"error": {"message": told}})
    error = refusal(status, body, 3)
    assert (type(error), error.status) == (UpstreamRefused, 400)
    assert (error.code, error.param, error.retry_after) == (
        "context_length_exceeded",
        "input",
        None,
    )


@pytest.mark.parametrize("server", TOO_LONG)
def test_it_is_known_inside_a_stream_too(server: str) -> None:
    """R12: SGLang says so inside a 200; the failed response has the code."""
    told = TOO_LONG[server]
    problem = decode(told)["error"] if told.startswith("{") else {"message": told}
    error = stream_failure(convert(problem, Problem))
    assert response_error(error)["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "message",
    [
        "Too many tokens per minute.",
        "Rate limit reached: 9000 tokens",
        "max_tokens must be at least 1",
        "context canceled",
        "1 validation error: context",
        "The prompt is empty.",
    ],
)
def test_other_errors_are_not_taken_for_it(message: str) -> None:
    """R15: a client would throw its history away."""
    assert refusal(400, encode({"error": {"message": message}}), None).code is None
    assert stream_failure(message).code == "server_error"


def test_a_failure_without_words_has_some() -> None:
    """R12: in a stream."""
    assert stream_failure(None).message == "The model server reported a failure."
