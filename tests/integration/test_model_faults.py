"""A model server that breaks in every way, seen by a client behind Envoy."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import catalogue, replies
from tests.support.fix_stack import BOTH_MODES
from tests.support.replies import call, reasoning, say, text
from tests.support.scripts import RESPONSES, Asked, Body, Cut, Hold, Script, Start, Step
from tests.support.stack import Stack, memory
from tests.support.wire import Wire

# An item of each kind.
ANSWER = replies.stream(reasoning("th", "ink"), text("Hel", "lo"), call("f", '{"a":', " 1}"))
EVENTS = len(list(ANSWER.make(Asked(RESPONSES, {}, "seed"))))
TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
MEGABYTE = 1 << 20


async def check_failed(wire: Wire, model: str) -> None:
    """A stream of the model ends as a failed one, and so does what is stored of it."""
    seen = await wire.stream(model, tools=TOOLS)
    ending = seen.ending
    assert ending["type"] == "response.failed"
    assert seen.kinds.count("error") == 1
    assert seen.kinds[-2] == "error"
    stored = await wire.get(ending["response"]["id"])
    assert stored.json == ending["response"]
    assert stored.json["error"]["message"]


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_a_connection_that_breaks_ends_the_stream_as_failed(
    stack: Stack, wire: Wire, reset: bool
) -> None:
    """R1, R12: behind each event; one `response.failed`, then [DONE], stored as the client saw it."""
    cuts = [stack.plays(Start(), ANSWER[:k], Cut(reset=reset)) for k in range(EVENTS)]

    await asyncio.gather(*(check_failed(wire, model) for model in cuts))


@BOTH_MODES
async def test_a_clean_end_without_a_terminal_event_is_a_failure(stack: Stack, wire: Wire) -> None:
    """R1: the body ends as HTTP wants it, and yet the response is not complete."""
    ends = [stack.plays(Start(), ANSWER[:k]) for k in range(EVENTS)]

    await asyncio.gather(*(check_failed(wire, model) for model in ends))


@pytest.mark.parametrize(
    "name",
    ["cut-after-status", "cut-in-event", "garbage", "error-frame", "nothing", "eof-after-delta"],
)
async def test_a_stream_that_makes_no_sense_is_a_failure(wire: Wire, name: str) -> None:
    """R1, R11: garbage, an error frame inside a 200, half an event."""
    await check_failed(wire, f"script/{name}")


@BOTH_MODES
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_an_answer_that_is_compressed_unasked_is_read(
    stack: Stack, wire: Wire, stream: bool
) -> None:
    """R1, R5: the client gets it whole, and not compressed."""
    model = stack.plays(ANSWER.gzipped())

    if stream:
        seen = await wire.stream(model, tools=TOOLS)
        response = seen.response
    else:
        seen = await wire.create(model=model, tools=TOOLS, stream=False)
        response = seen.json

    assert "content-encoding" not in seen.headers
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
    ]
    assert response["output"][1]["content"][0]["text"] == "Hello"


@BOTH_MODES
async def test_what_came_before_the_failure_is_kept(stack: Stack, wire: Wire) -> None:
    """R5, R9: finished items stay completed, the open one is incomplete; the error is the server's."""
    model = stack.plays(ANSWER[:-7], replies.error_frame("Out of memory."))

    seen = await wire.stream(model, tools=TOOLS)

    assert [item["type"] for item in seen.response["output"]][:2] == ["reasoning", "message"]
    assert seen.response["error"] == {"code": "server_error", "message": "Out of memory."}
    [error] = [event for event in seen.events if event["type"] == "error"]
    assert error["message"] == error["error"]["message"] == "Out of memory."


@BOTH_MODES
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"<html>Please log in</html>",
        b'{"error": {"message": "Out of memory."}}',
        b'{"object": "chat.completion", "choices": [{"message": {"content": "hi"}}]}',
    ],
    ids=["nothing", "empty", "null", "html", "error", "chat"],
)
async def test_a_200_that_is_no_response_is_a_failure(
    stack: Stack, wire: Wire, body: bytes
) -> None:
    """R1, H1: never taken for a completed response without output."""
    model = stack.plays(Body(lambda _: body))

    await check_failed(wire, model)
    whole = await wire.create(model=model, stream=False)

    assert whole.status == 502
    assert "The model server's answer is not valid" in whole.error["message"]


@BOTH_MODES
@pytest.mark.parametrize(
    "name",
    sorted(
        {"one-byte-writes", "crlf", "mixed-line-ends", "one-write", "comments", "no-event-lines"}
        | {"multi-line-data", "done-marker", "usage-null", "json-instead-of-stream", "text"}
    ),
)
async def test_odd_bytes_are_no_fault(wire: Wire, name: str) -> None:
    """R11: any chunking, line ends, comments; JSON where a stream was asked for."""
    seen = await wire.stream(f"script/{name}")

    assert seen.ending["type"] == "response.completed"
    assert seen.text == "Hello"
    assert name in catalogue.NAMED


@BOTH_MODES
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_is_compressed_anyway_is_read(wire: Wire, stream: bool) -> None:
    """E7: we ask for no compression; a proxy before the model server may not care."""
    seen = await wire.create(model="script/gzip", stream=stream)

    response = seen.response if stream else seen.json
    assert response["output"][0]["content"][0]["text"] == "Hello"


@BOTH_MODES
@pytest.mark.parametrize(
    ("name", "status", "kind", "code"),
    [
        ("400", 400, "invalid_request_error", None),
        ("404", 404, "invalid_request_error", None),
        ("429", 429, "too_many_requests", "rate_limit_exceeded"),
        ("500", 500, "server_error", "server_error"),
        ("500-text", 500, "server_error", "server_error"),
        ("503", 503, "server_error", "server_error"),
    ],
)
async def test_a_refusal_of_the_model_server_is_our_status(
    stack: Stack, wire: Wire, name: str, status: int, kind: str, code: str | None
) -> None:
    """R15, R16: also for a stream, of which nothing was sent yet; nothing of it is stored."""
    model = stack.plays(catalogue.NAMED[name])

    answers = await asyncio.gather(wire.stream(model), wire.create(model=model, stream=False))

    for seen in answers:
        assert seen.status == status
        assert (seen.error["type"], seen.error["code"]) == (kind, code)
        assert seen.headers.get("retry-after") == ("1" if status in (429, 503) else None)
        assert seen.headers["x-request-id"]
    rows = await stack.sql("SELECT id FROM responses WHERE model = %s", model)
    assert rows == []


@BOTH_MODES
async def test_a_busy_model_server_is_asked_again(stack: Stack, wire: Wire) -> None:
    """Promise 5: Envoy tries a 503 again; the client never learns of it."""
    model = stack.plays(say(text("Hello")))
    stack.model.script(Script(replies.unavailable()), Script(replies.unavailable()))

    seen = await wire.stream(model)

    assert seen.ending["type"] == "response.completed"
    assert len(stack.asked(model)) == 3


@BOTH_MODES
async def test_a_model_server_that_sheds_load_is_asked_once(stack: Stack, wire: Wire) -> None:
    """R16: a 429 and its Retry-After are the client's, which waits as long as it is told."""
    model = stack.plays(Script(replies.rate_limited()))

    seen = await wire.create(model=model, stream=False)

    assert seen.status == 429
    assert len(stack.asked(model)) == 1


@BOTH_MODES
async def test_an_error_of_20_megabytes_is_read_in_part(stack: Stack, wire: Wire) -> None:
    """R15, X5: a 400 with a short message; neither memory nor the client sees the rest."""
    workers = [stack.worker(0), stack.worker(1)]
    await wire.create(model="script/400-20mb")
    before = sum(map(memory, workers))

    for stream in (False, True, False, True, False, True):
        seen = await wire.create(model="script/400-20mb", stream=stream)
        assert seen.status == 400
        assert len(seen.raw) < 10_000

    assert sum(map(memory, workers)) - before < 16 * MEGABYTE


@BOTH_MODES
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_model_server_that_does_not_answer_is_a_502(
    stack: Stack, wire: Wire, stream: bool
) -> None:
    """R15: it hangs up before its status, each time that Envoy asks."""
    model = stack.plays(Cut())

    seen = await wire.create(model=model, stream=stream)

    assert seen.status in (502, 503)
    assert seen.error["type"] == "server_error"
    assert len(stack.asked(model)) == 3


async def test_a_slow_start_is_filled_with_heartbeats(hasty: Stack, hasty_wire: Wire) -> None:
    """R2, R13, R16: after `open_after` the stream begins on its own, and comments keep it alive."""
    gate = asyncio.Event()
    model = hasty.plays(Hold(gate), replies.stream(text("Hel", "lo")))

    async with hasty_wire.open(model=model) as reading:
        await reading.until("response.in_progress")
        await reading.until_comments(3)
        gate.set()
        await reading.rest()

    assert reading.text == "Hello"
    assert reading.ending["type"] == "response.completed"


async def test_an_error_after_the_start_is_an_event(hasty: Stack, hasty_wire: Wire) -> None:
    """R16: the status is spent, so the refusal is told as events and stored."""
    gate = asyncio.Event()
    model = hasty.plays(Hold(gate), replies.bad_request())

    async with hasty_wire.open(model=model) as reading:
        await reading.until("response.in_progress")
        gate.set()
        await reading.rest()

    assert reading.ending["type"] == "response.failed"
    assert (await hasty_wire.get(reading.response["id"])).json["status"] == "failed"


async def test_heartbeats_fill_a_silence_in_the_middle(hasty: Stack, hasty_wire: Wire) -> None:
    """R13: comments, between whole events, for as long as nothing else is said."""
    gate = asyncio.Event()
    model = hasty.plays(ANSWER[:6], Hold(gate), ANSWER[6:])

    async with hasty_wire.open(model=model, tools=TOOLS) as reading:
        await reading.until("response.reasoning_text.delta", 2)
        await reading.until_comments(3)
        gate.set()
        await reading.rest()

    assert reading.ending["type"] == "response.completed"


@pytest.mark.parametrize("events", [0, 5], ids=["no-status", "after-a-delta"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_model_server_that_falls_silent_has_failed(
    hasty: Stack, hasty_wire: Wire, events: int, stream: bool
) -> None:
    """R1: after `silence_seconds`; the backend sees the connection close."""
    never = asyncio.Event()
    steps: list[Step] = [Start(), ANSWER[:events]] if events else []
    model = hasty.plays(*steps, Hold(never))

    seen = await hasty_wire.create(model=model, stream=stream)

    if stream:
        assert seen.ending["type"] == "response.failed"
        assert "silent" in seen.response["error"]["message"]
    else:
        assert seen.status == 502
        assert "silent" in seen.error["message"]
    await (await hasty.asks(model)).wait_aborted()


async def test_a_line_or_a_response_without_end_is_cut_off(hasty: Stack, hasty_wire: Wire) -> None:
    """X5: bounded in a line and in all; the client gets a failure, the backend an abort."""
    hello = replies.stream(text("Hel", "lo"))
    for endless in (
        hasty.plays(hello[:5], replies.long_line(100 << 10), hello[5:]),
        hasty.plays(replies.endless(100_000)),
    ):
        seen = await hasty_wire.stream(endless)
        assert seen.ending["type"] == "response.failed"
