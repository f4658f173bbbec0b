"""Requests that are malformed, too large, compressed or sent to the wrong place, through Envoy."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import brotli
import openai
import pytest
import zstandard

from tests.support.fix_stack import ALL_WAYS, HASTY_BODY_LIMIT
from tests.support.replies import say, text
from tests.support.stack import Stack, memory
from tests.support.wire import RESPONSES, Seen, Wire

MEGABYTE = 1 << 20
JSON = {"content-type": "application/json"}


def body_of(size: int, model: str = "script/text") -> bytes:
    """Return a create request of so many bytes."""
    empty = json.dumps({"model": model, "input": ""})
    return json.dumps({"model": model, "input": "x" * (size - len(empty))}).encode()


async def in_chunks(body: bytes, size: int = 8192) -> AsyncIterator[bytes]:
    """Yield a body so that it is sent without a length."""
    for at in range(0, len(body), size):
        yield body[at : at + size]


async def post(wire: Wire, body: Any, **headers: str) -> Seen:
    """Send bytes as a create request."""
    return await wire.ask("POST", RESPONSES, data=body, headers={**JSON, **headers})


# -- size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_over_the_limit_is_413(hasty_wire: Wire, chunked: bool) -> None:
    """X5, R15: announced by its length or found out on the way."""
    body = body_of(HASTY_BODY_LIMIT + 1)

    seen = await post(hasty_wire, in_chunks(body) if chunked else body)

    assert seen.status == 413
    assert seen.error["type"] == "invalid_request_error"
    assert seen.error["code"] == "request_too_large"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_at_the_limit_is_taken(hasty_wire: Wire, chunked: bool) -> None:
    """X5: the limit is the setting's, to the byte."""
    body = body_of(HASTY_BODY_LIMIT)

    seen = await post(hasty_wire, in_chunks(body) if chunked else body)

    assert seen.status == 200


# -- encodings ------------------------------------------------------------------------------------

ENCODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@ALL_WAYS
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_compressed_body_is_read(stack: Stack, wire: Wire, encoding: str) -> None:
    """The model is sent it uncompressed, without the encoding's header."""
    model = stack.plays(say(text("ok")))
    body = ENCODINGS[encoding](json.dumps({"model": model, "input": "compressed"}).encode())

    seen = await post(wire, body, **{"content-encoding": encoding})

    assert seen.status == 200
    [received] = stack.asked(model)
    assert received.json["input"][0]["content"] == "compressed"
    assert "content-encoding" not in received.headers


@ALL_WAYS
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_body_that_is_not_what_it_says_is_400(wire: Wire, encoding: str) -> None:
    """Garbage, and a good beginning that breaks off."""
    whole = ENCODINGS[encoding](body_of(5000))
    for body in (b'{"model": "demo", "input": "plain"}', whole[:-4], whole[: len(whole) // 2]):
        seen = await post(wire, body, **{"content-encoding": encoding})

        assert seen.status == 400
        assert seen.error["code"] == "invalid_encoding"


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_decompression_bomb_is_413_and_costs_nothing(
    hasty: Stack, hasty_wire: Wire, encoding: str
) -> None:
    """X5: a body below the limit that would become 64 MB does not become it."""
    zeros = b" " * (64 * MEGABYTE)
    bomb = ENCODINGS[encoding](zeros)
    if len(bomb) > HASTY_BODY_LIMIT:
        bomb = bomb[: HASTY_BODY_LIMIT - 1]
    before = memory(hasty.worker(0))

    for _ in range(3):
        seen = await post(hasty_wire, bomb, **{"content-encoding": encoding})
        assert seen.status == 413
        assert seen.error["code"] == "request_too_large"

    assert memory(hasty.worker(0)) - before < 8 * MEGABYTE


@ALL_WAYS
@pytest.mark.parametrize("encoding", ["compress", "gzip, br, gzip", "x"])
async def test_an_encoding_that_is_not_known_is_415(wire: Wire, encoding: str) -> None:
    """And the known ones are named."""
    seen = await post(wire, b"{}", **{"content-encoding": encoding})

    assert seen.status == 415
    assert seen.error["code"] == "unsupported_media_type"


# -- what is in it --------------------------------------------------------------------------------


@ALL_WAYS
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"null", b"{}x", b'{"model": "demo", "input": "\xff"}',
        b'{"model": "demo", "input": "\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000,
    ],
    ids=["empty", "cut", "list", "string", "null", "more", "utf8", "surrogate", "deep", "deeper"],
)  # fmt: skip
async def test_what_is_no_json_object_is_400(wire: Wire, body: bytes) -> None:
    """R15: never a 500, whatever the bytes."""
    seen = await post(wire, body)

    assert seen.status == 400
    assert seen.error["type"] == "invalid_request_error"


@ALL_WAYS
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "odd"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "odd"}]}, "input[0].type"),
        ({"stream": "yes"}, "stream"),
        ({"store": 1}, "store"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"background": True, "store": False}, "background"),
        ({"conversation": 7}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["everything"]}, "include[0]"),
        ({"previous_response_id": 5}, "previous_response_id"),
        ({"colour": "red"}, "colour"),
        ({"messages": []}, "messages"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_field_that_cannot_be_honoured_is_named(
    wire: Wire, fields: dict[str, Any], param: str, stream: bool
) -> None:
    """H1: 400 with `param`, also for a stream; nothing is ignored."""
    seen = await wire.create(**{"model": "demo", "stream": stream, **fields})

    assert seen.status == 400
    assert seen.error["param"] == param
    assert seen.error["message"]


@ALL_WAYS
async def test_text_that_databases_fear_is_kept(wire: Wire, stack: Stack) -> None:
    """M8: NUL, lone control characters, astral planes, quotes: stored and replayed as they came."""
    odd = "a\0b \x01\x7f \u2028 \U0001f44b '\"\\ ; DROP TABLE responses"
    model = stack.plays(say(text(odd)))

    one = await wire.create(model=model, input=odd, metadata={"k": odd}, stream=False)
    two = await wire.create(model=model, previous_response_id=one.json["id"], stream=False)

    assert (one.status, two.status) == (200, 200)
    stored = await wire.get(one.json["id"])
    assert stored.json["metadata"] == {"k": odd}
    assert stored.json["output"][0]["content"][0]["text"] == odd
    assert [i["content"] for i in stack.asked(model)[1].json["input"]] == [odd, odd, "hi"]


# -- where it is sent -----------------------------------------------------------------------------


@ALL_WAYS
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/x"])
async def test_another_content_type_is_415(wire: Wire, kind: str) -> None:
    """R15: before the body is read."""
    seen = await post(wire, body_of(100), **{"content-type": kind})

    assert seen.status == 415
    assert seen.error["code"] == "unsupported_media_type"


@ALL_WAYS
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/responses"),
        ("PATCH", "/v1/responses"),
        ("DELETE", "/v1/responses"),
        ("POST", "/v1/responses/resp_x"),
        ("GET", "/v1/responses/resp_x/cancel"),
        ("DELETE", "/v1/responses/resp_x/input_items"),
    ],
)
async def test_another_method_is_405(wire: Wire, method: str, path: str) -> None:
    """R15: with or without a body; what is allowed is told."""
    for data in (None, b"{}"):
        seen = await wire.ask(method, path, data=data)

        assert seen.status == 405
        assert seen.error["code"] == "method_not_allowed"
        assert set(seen.headers["allow"].split(", ")) <= {"GET", "POST", "DELETE"} - {method}


@ALL_WAYS
async def test_a_query_of_a_create_request_is_refused(wire: Wire) -> None:
    """H1: the operation has no query parameters, so none can be honoured."""
    seen = await wire.ask("POST", "/v1/responses?stream=true", json={"model": "m", "input": "x"})
    assert (seen.status, seen.error["param"]) == (400, "stream")


@ALL_WAYS
@pytest.mark.parametrize(
    "path", ["/v1/responses/", "/v1/responses/x/y", "/v1/responses/x/input_items/y"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_an_unknown_path_below_ours_is_404(wire: Wire, method: str, path: str) -> None:
    """R15: it does not reach the model server."""
    seen = await wire.ask(method, path)

    assert seen.status == 404
    assert seen.error["type"] == "invalid_request_error"


@ALL_WAYS
async def test_a_request_without_a_body_is_400(wire: Wire) -> None:
    """R15: no length, no chunk, nothing."""
    seen = await wire.ask("POST", RESPONSES, headers=JSON)

    assert seen.status == 400


@ALL_WAYS
async def test_errors_become_the_sdks_exceptions(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """R15: class, code, param, type and request id, for refusals of ours and of the model server."""
    cases: list[tuple[type[openai.APIStatusError], int, dict[str, Any]]] = [
        (openai.BadRequestError, 400, {"model": "demo", "temperature": 9}),
        (openai.BadRequestError, 400, {"model": "script/400"}),
        (openai.NotFoundError, 404, {"model": "vllm-9.9.9/no-such-model"}),
        (openai.RateLimitError, 429, {"model": "script/429"}),
        (openai.InternalServerError, 500, {"model": "script/500"}),
        (openai.InternalServerError, 503, {"model": "script/503"}),
    ]
    for kind, status, fields in cases:
        with pytest.raises(kind) as caught:
            await client.responses.create(input="hi", **fields)
        error = caught.value
        assert error.status_code == status
        assert error.request_id
        assert error.type in ("invalid_request_error", "too_many_requests", "server_error")
        if "temperature" in fields:
            assert (error.param, error.code) == ("temperature", "invalid_value")


@ALL_WAYS
async def test_a_failed_stream_raises_in_the_sdk(client: openai.AsyncOpenAI) -> None:
    """R12: the SDK raises what the `error` event says."""
    with pytest.raises(openai.APIError, match="EngineCore"):
        async for _ in await client.responses.create(
            model="script/error-frame", input="hi", stream=True
        ):
            pass
