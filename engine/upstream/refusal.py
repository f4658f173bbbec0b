"""A model server's error answer as an error of ours: its status and a message that helps (rule R15)."""

from __future__ import annotations

import re

import msgspec

from engine.errors import EngineError, UpstreamFailed, UpstreamRefused
from engine.upstream.frames import Problem


class _Body(msgspec.Struct):
    """The error bodies that servers send: OpenAI's, FastAPI's, and a bare message."""

    error: Problem | str | None = None
    message: str | None = None
    detail: msgspec.Raw = msgspec.Raw(b"null")


# The sentences by which servers say that a prompt is too long, in the order of: OpenAI, vLLM and
# OpenRouter; SGLang, vLLM's engine; llama.cpp; Ollama; LM Studio; TGI; Mistral, Anthropic and Google
# behind gateways; LiteLLM. Each is specific: "too many tokens" alone is also said of rate limits.
_TOO_LONG = re.compile(
    r"maximum context length|exceeds? the context window|context_length_exceeded"
    r"|longer than the (?:model's context length|maximum model length)"
    r"|prompt length \S+ exceeds the max_model_len"
    r"|available context size|context size has been exceeded|exceed(?:s|ed)? context window"
    r"|exceed(?:s|ed) (?:the |max )*context length"
    r"|model is loaded with context length|greater than the context length|n_keep.{0,40}n_ctx"
    r"|`inputs` (?:tokens \+|must have less than)"
    r"|prompt (?:is )?too long|exceed context limit|input token count .{0,40}exceeds the maximum"
    r"|ContextWindowExceeded",
    re.IGNORECASE,
)
_TOO_LONG_KINDS = ("context_length_exceeded", "exceed_context_size_error")


class _Named(msgspec.Struct):
    param: str | None = None


class _ErrorParam(msgspec.Struct):
    error: _Named = msgspec.field(default_factory=_Named)


def refusal(
    status: int, body: bytes, retry_after: int | None, *, clients_credentials: bool = False
) -> EngineError:
    """Return the error for an answer whose status is not 200; `body` may be cut anywhere.

    A 4xx is the client's to see; 401 and 403 only where the credentials were the client's own.
    """
    problem = _problem(body)
    message = problem.message
    if status in (401, 403) and not clients_credentials:
        return UpstreamFailed("The model server refused the gateway's credentials.")
    if _is_too_long(problem):
        return _too_long(problem)
    if status == 404:
        message = f"The model server answered 404: {message or 'Not Found'}"
    if 400 <= status < 500:
        return UpstreamRefused(
            status,
            message or f"The model server refused the request ({status}).",
            param=_param(body),
            code="rate_limit_exceeded" if status == 429 else None,
            retry_after=retry_after,
        )
    shown = f"The model server failed ({status})"
    return UpstreamFailed(
        f"{shown}: {message[:300]}" if message else f"{shown}.",
        status=status if status >= 500 else 502,
        retry_after=retry_after,
    )


def stream_failure(problem: Problem | str | None) -> EngineError:
    """Return the error for a failure that a server reports inside a stream, where its status was 200."""
    told = problem if isinstance(problem, Problem) else Problem(message=problem)
    if _is_too_long(told):
        return _too_long(told)
    message = told.message or "The model server reported a failure."
    return UpstreamFailed(message, passing=not _blames_request(told))


def _blames_request(problem: Problem) -> bool:
    """Return whether a problem would be the same the next time: servers tell of 4xx in many types."""
    said = f"{problem.code} {problem.type}".lower()
    return said[0] == "4" or any(word in said for word in ("badrequest", "invalid", "notfound"))


def _is_too_long(problem: Problem) -> bool:
    if problem.code in _TOO_LONG_KINDS or problem.type in _TOO_LONG_KINDS:
        return True
    return problem.message is not None and _TOO_LONG.search(problem.message[:2000]) is not None


def _too_long(problem: Problem) -> UpstreamRefused:
    """Return the one error of this kind that clients know, whatever the status it came with."""
    return UpstreamRefused(
        400,
        problem.message or "The input is longer than the model's context.",
        param="input",
        code="context_length_exceeded",
    )


def _problem(body: bytes) -> Problem:
    try:
        read = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Cut by the bound, or no JSON: take the text if it looks like a sentence rather than a page.
        text = body[:2000].decode("utf-8", "replace").strip()
        sentence = text and not text.startswith(("<", "{", "["))
        return Problem(message=text if sentence else _first_message(text))
    problem = read.error
    if isinstance(problem, Problem):
        return problem
    return Problem(message=problem or read.message or _detail(read.detail))


def _detail(raw: msgspec.Raw) -> str | None:
    """Return FastAPI's `detail`: a sentence, or a list of problems of which the first has one."""
    detail = msgspec.json.decode(raw)
    first = detail[0] if isinstance(detail, list) and detail else detail
    message = first.get("msg") if isinstance(first, dict) else first
    return message if isinstance(message, str) else None


def _first_message(text: str) -> str | None:
    """Return the start of the first `message` string of a JSON text that was cut."""
    _, found, rest = text.partition('"message":')
    rest = rest.lstrip().removeprefix('"')
    return rest[:500] or None if found else None


def _param(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_ErrorParam).error.param
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
