"""`engine.loop`: what the client and the store see, whatever happens to model, store, client and worker."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging

import pytest

from engine.answers import Answer
from engine.errors import (
    EngineError,
    InvalidRequest,
    LeaseLost,
    StorageUnavailable,
    UpstreamFailed,
)
from engine.response.machine import ResponseMachine
from engine.response.output import Output
from engine.upstream.responses import ResponsesStream
from tests.support import frames, replies
from tests.support.engine_rig import CALLER, Rig, final, small, turns
from tests.support.fake_model import JSON, STREAM, Break, FakeModel, Hang, Head, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, reasoning, text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
TOOLS = [{"type": "function", "name": "f"}]


def kinds(reply: FakeReply) -> list[str]:
    return [line[7:].decode() for line in reply.raw.split(b"\n") if line.startswith(b"event: ")]


# -- the ordinary way --------------------------------------------------------------------------------


async def test_a_stream_ends_with_what_the_store_holds() -> None:
    """R14, P1: streaming or not, the client gets the object that is stored."""
    rig = Rig(FakeModel(*HELLO))

    streamed = final(await rig.stream())
    whole = (await rig.create()).json

    assert streamed == await rig.retrieve(streamed["id"])
    assert whole == await rig.retrieve(whole["id"])
    ids = {"id", "output"}
    assert {k: v for k, v in streamed.items() if k not in ids} == {
        k: v for k, v in whole.items() if k not in ids
    }


async def test_a_response_that_is_not_to_be_stored_leaves_nothing() -> None:
    """P5: no row, also no input."""
    rig = Rig(FakeModel(*HELLO))

    response = final(await rig.stream(store=False))

    assert (response["status"], response["store"]) == ("completed", False)
    assert await rig.stored() == []
    assert not rig.store.reached["accept"].is_set()


async def test_the_model_is_called_with_the_callers_headers() -> None:
    """What joins the logs is carried on."""
    rig = Rig(FakeModel(*HELLO))

    await rig.create()

    [headers] = rig.model.headers
    assert headers.items() >= CALLER.model_headers.items()


async def test_events_that_came_together_leave_together() -> None:
    """One write for one chunk, whatever is in it."""
    rig = Rig(FakeModel(*frames.joined(HELLO, None)))
    reply = await rig.create(stream=True)

    check_stream(reply.raw)
    assert len(reply.writes) <= 3


async def test_an_answer_that_is_no_stream_becomes_one() -> None:
    """A server that answers a request for a stream with JSON is understood."""
    body = json.dumps(
        {
            "status": "completed",
            "output": [
                {"type": "message", "content": [{"type": "output_text", "text": "One"}]},
                {"type": "message", "content": [{"type": "refusal", "refusal": "No"}]},
                {"type": "function_call", "name": "f", "arguments": '{"a":1}'},
            ],
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    ).encode()
    rig = Rig(FakeModel(Head(200, JSON), body))

    response = final(await rig.stream(tools=TOOLS))

    shown = [(i["type"], i.get("content"), i.get("arguments")) for i in response["output"]]
    assert [kind for kind, _, _ in shown] == ["message", "message", "function_call"]
    assert response["output"][0]["content"][0]["text"] == "One"
    assert response["output"][1]["content"] == [{"type": "refusal", "refusal": "No"}]
    assert shown[2][2] == '{"a":1}'
    assert response["usage"]["total_tokens"] == 7


# -- the store fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [StorageUnavailable("gone"), LeaseLost("stolen"), RuntimeError("a bug")], ids=repr
)
async def test_no_stream_completes_whose_response_was_not_stored(error: Exception) -> None:
    """P1, R12: an `error` event in both forms, then response.failed."""
    rig = Rig(FakeModel(*HELLO))
    rig.store.faults["finish"] = error

    events = await rig.stream()

    assert final(events)["status"] == "failed"
    assert "response.completed" not in [event["type"] for event in events]
    assert events[-2]["type"] == "error"
    assert events[-2]["code"] == events[-2]["error"]["code"]
    assert len(final(events)["output"]) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(StorageUnavailable("gone"), 503), (LeaseLost("stolen"), 500), (RuntimeError("bug"), 500)],
    ids=repr,
)
async def test_no_answer_is_a_success_that_was_not_stored(error: Exception, status: int) -> None:
    """P1: without a stream the failure is the status."""
    rig = Rig(FakeModel(*HELLO))
    rig.store.faults["finish"] = error

    reply = await rig.create()

    assert reply.whole is not None
    assert reply.whole.status == status


@pytest.mark.parametrize("stream", [True, False])
async def test_a_store_that_is_down_refuses_new_work_and_stops_the_model(stream: bool) -> None:
    """P2: 503 with retry-after at once; the model's call is given up."""
    never = asyncio.Event()
    rig = Rig(FakeModel(Hang(never), *HELLO))
    rig.store.faults["accept"] = StorageUnavailable("The store cannot be reached.")

    reply = await rig.create(stream=stream)

    assert reply.whole is not None
    assert (reply.whole.status, reply.whole.headers) == (503, {"retry-after": "1"})
    assert reply.json["error"]["code"] == "storage_unavailable"
    assert rig.model.aborted.is_set() or not rig.model.called.is_set()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_store_that_breaks_in_an_unknown_way_is_a_500(stream: bool) -> None:
    """R15: a bug of ours is an answer too."""
    rig = Rig(FakeModel(*HELLO))
    rig.store.faults["accept"] = RuntimeError("a bug")

    reply = await rig.create(stream=stream)

    assert reply.whole is not None
    assert reply.whole.status == 500


async def test_a_refusal_is_answered_although_the_row_cannot_be_taken_back() -> None:
    """R16: the client's answer does not depend on the cleaning up."""
    for error in (StorageUnavailable("gone"), RuntimeError("a bug")):
        rig = Rig(FakeModel(Head(400), b"{}"))
        rig.store.faults["abandon"] = error

        reply = await rig.create(stream=True)

        assert reply.whole is not None
        assert reply.whole.status == 400


# -- the model fails before its first token ----------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("status", "ours", "retry_after"),
    [
        (400, 400, None),
        (404, 404, None),
        (422, 422, None),
        (429, 429, 7),
        (500, 500, None),
        (503, 503, 2),
        (401, 502, None),
        (403, 502, None),
        (302, 502, None),
    ],
)
async def test_the_models_refusal_becomes_our_status(
    status: int, ours: int, retry_after: int | None, stream: bool
) -> None:
    """R16: rewritten, with retry-after, and nothing of the request stays stored."""
    body = b'{"error":{"message":"so it is","type":"BadRequestError","param":null,"code":400}}'
    rig = Rig(FakeModel(Head(status, retry_after=retry_after), body))

    reply = await rig.create(stream=stream)

    assert reply.whole is not None
    assert reply.whole.status == ours
    assert reply.whole.headers == ({} if retry_after is None else {"retry-after": str(retry_after)})
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    if status not in (401, 403):
        assert "so it is" in reply.json["error"]["message"]
    assert await rig.stored() == []


async def test_a_refusal_keeps_its_status_where_its_body_breaks_off() -> None:
    """R16: the status has come, so it counts."""
    rig = Rig(FakeModel(Head(400), b'{"error": {"mess', Break()))

    reply = await rig.create()

    assert reply.whole is not None
    assert reply.whole.status == 400


async def test_a_refusal_of_megabytes_is_read_up_to_the_bound() -> None:
    """R15: what reaches the client is short."""
    body = b'{"error":{"message":"' + b"x" * 2_000_000 + b'"}}'
    rig = Rig(FakeModel(Head(400), *frames.split_every([body], 50_000)))

    reply = await rig.create()

    assert reply.whole is not None
    assert len(reply.whole.body) < 4000
    assert rig.model.aborted.is_set()


async def test_a_model_server_that_cannot_be_reached_is_a_502() -> None:
    """R16: no status came at all."""
    rig = Rig(FakeModel(Break()))

    reply = await rig.create(stream=True)

    assert reply.whole is not None
    assert reply.whole.status == 502
    assert await rig.stored() == []


# -- a slow model ------------------------------------------------------------------------------------


async def test_a_stream_starts_without_the_model_after_a_while() -> None:
    """R16, R13: created and in_progress after `open_after`, heartbeats in the silence."""
    gate = asyncio.Event()
    limits = small(open_after=0.01, heartbeat=0.01)
    rig = Rig(FakeModel(Hang(gate), *HELLO), limits=limits)
    reply = FakeReply()
    running = rig.start(reply, stream=True)

    await reply.until(b": keep-alive\n\n", 3)
    assert kinds(reply) == ["response.created", "response.in_progress"]
    gate.set()
    await running

    assert final(check_stream(reply.raw))["status"] == "completed"


async def test_a_refusal_after_the_start_is_told_by_events() -> None:
    """R16, R12: the status is gone; the response is stored as failed."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(Hang(gate), Head(429), b"{}"), limits=small(open_after=0.01))
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b"response.in_progress")
    gate.set()
    await running

    events = check_stream(reply.raw)
    assert events[-2]["error"]["code"] == "rate_limit_exceeded"
    assert final(events)["error"]["code"] == "rate_limit_exceeded"
    assert (await rig.the_stored()).status == "failed"


async def test_nothing_is_sent_before_the_accepted_row_is_written() -> None:
    """M1, P1: a client never learns an id that the store does not have."""
    rig = Rig(FakeModel(*HELLO), limits=small(open_after=0.0))
    rig.store.holds["accept"] = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.store.reached["accept"].wait()
        await rig.model.called.wait()
    assert not reply.opened
    rig.store.holds["accept"].set()
    await running

    check_stream(reply.raw)


async def test_heartbeats_fill_the_silence_between_tokens_and_before_the_end() -> None:
    """R13: in every silence, while the model thinks and while the store writes."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]), limits=small(heartbeat=0.01))
    rig.store.holds["finish"] = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b": keep-alive\n\n", 2)
    gate.set()
    await reply.until(b"response.output_item.done")
    before = reply.raw.count(b": keep-alive")
    await reply.until(b": keep-alive", before + 2)
    assert b"response.completed" not in reply.raw
    rig.store.holds["finish"].set()
    await running

    check_stream(reply.raw)


async def test_a_turn_has_a_limit() -> None:
    """R1: a model that never ends is given up, and the client is told."""
    rig = Rig(FakeModel(*HELLO[:5], Hang(asyncio.Event())), limits=small(turn=0.02))

    events = await rig.stream()

    assert final(events)["status"] == "failed"
    assert "too long" in events[-2]["message"]
    assert rig.model.aborted.is_set()


# -- the model fails after its first token -----------------------------------------------------------

BROKEN: dict[str, list[Step]] = {
    "breaks off after the third delta": [*HELLO[:7], Break()],
    "breaks off inside an event": [*HELLO[:5], HELLO[5][:40], Break()],
    "ends without a terminal event": [*HELLO[:-1]],
    "ends with no event": [],
    "sends an error frame": [*HELLO[:5], *frames_of(replies.error_frame("broken engine"))],
    "sends garbage": [*HELLO[:5], b"data: {garbage\n\n"],
    "nests without end": [*HELLO[:5], b'data: {"type":' + b"[" * 100_000 + b"\n\n"],
    "sends response.failed": [
        *HELLO[:5],
        b'data: {"type":"response.failed","response":{"error":{"message":"broken"}}}\n\n',
    ],
    "sends garbage as JSON": [Head(200, JSON), b"nonsense"],
    "sends an endless line": [*HELLO[:5], b"data: " + b"x" * 70_000],
    "sends an event of endless lines": [*HELLO[:5], *[b"data: " + b"x" * 9_000 + b"\n"] * 9],
    "sends too much text": [*HELLO[:5], *[HELLO[5]] * 20_000],
    "sends too much JSON": [Head(200, JSON), *[b" " * 1000] * 70],
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_model_that_breaks_ends_the_stream_in_order(name: str) -> None:
    """R1, R12: one terminal event; what was made is stored with it as failed."""
    limits = small(line_bytes=1 << 16, response_bytes=1 << 16, answer_bytes=1 << 16)
    rig = Rig(FakeModel(*BROKEN[name]), limits=limits)

    events = await rig.stream()

    response = final(events)
    assert response["status"] == "failed"
    assert response == await rig.retrieve(response["id"])
    # What broke off before its first delta was asked for once more.
    assert len(rig.model.bodies) == (2 if name == "ends with no event" else 1)


async def test_text_behind_a_start_token_is_bounded_too() -> None:
    """X5: what is held back counts as what was let through."""
    delta = frames.sse({"type": "response.output_text.delta", "delta": "<tool_call>" + "x" * 1000})
    rig = Rig(FakeModel(*[delta] * 200), limits=small(response_bytes=100_000))

    events = await rig.stream(tools=TOOLS)

    assert "over 100000 bytes" in events[-2]["message"]


async def test_arguments_of_a_call_that_waits_are_bounded_too() -> None:
    """X5: a second call's arguments are kept while the first is open."""
    added = [
        {
            "type": "response.output_item.added",
            "item": {"type": "function_call", "id": i, "name": i},
        }
        for i in ("a", "b")
    ]
    delta = {"type": "response.function_call_arguments.delta", "delta": "x" * 1000}
    more = frames.sse({**delta, "item_id": "b"})
    script = [*map(frames.sse, added), frames.sse({**delta, "item_id": "a"}), *[more] * 200]
    rig = Rig(FakeModel(*script), limits=small(response_bytes=100_000))

    events = await rig.stream(tools=TOOLS)

    assert "over 100000 bytes" in events[-2]["message"]


async def test_empty_items_without_end_are_bounded_too() -> None:
    """X5: an item without text takes memory as well."""

    def empty(number: int) -> bytes:
        item = {"type": "function_call", "id": f"i{number}", "name": "f"}
        made = [
            {"type": f"response.output_item.{when}", "item": item} for when in ("added", "done")
        ]
        return b"".join(map(frames.sse, made))

    script = [empty(number) for number in range(1000)]
    rig = Rig(FakeModel(*script), limits=small(response_bytes=50_000))

    events = await rig.stream(tools=TOOLS)

    assert "over 50000 bytes" in events[-2]["message"]


async def test_without_a_stream_a_broken_model_is_a_502() -> None:
    """R1: and the failed response can be fetched by who knows its id."""
    rig = Rig(FakeModel(*HELLO[:6], Break()))

    reply = await rig.create()

    assert reply.whole is not None
    assert reply.whole.status == 502
    assert (await rig.the_stored()).status == "failed"


# -- the client leaves -------------------------------------------------------------------------------


async def left(rig: Rig, reply: FakeReply, **fields: object) -> None:
    """Start a response and leave when the model was called."""
    running = rig.start(reply, **fields)
    async with asyncio.timeout(5):
        await rig.model.called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", [0, 5])
async def test_a_stored_response_survives_its_client(stream: bool, where: int) -> None:
    """P3: the client leaves before the first token or in the middle; the response completes."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:where], Hang(gate), *HELLO[where:]))
    await left(rig, FakeReply(), stream=stream)

    gate.set()
    await rig.settled()

    assert (await rig.the_stored()).status == "completed"
    assert not rig.model.aborted.is_set()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", [0, 5])
async def test_a_response_that_is_not_stored_ends_with_its_client(stream: bool, where: int) -> None:
    """P3: nobody can ever read it, so the model is stopped at once."""
    rig = Rig(FakeModel(*HELLO[:where], Hang(asyncio.Event()), *HELLO[where:]))
    await left(rig, FakeReply(), stream=stream, store=False)

    await rig.settled()

    assert rig.model.aborted.is_set()
    assert await rig.stored() == []


async def test_a_client_that_breaks_while_it_is_written_to_is_one_that_left() -> None:
    """P3: the transport's own error, too."""
    rig = Rig(FakeModel(*HELLO))
    reply = FakeReply()
    reply.gone = ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await rig.create(reply, stream=True)
    await rig.settled()

    assert (await rig.the_stored()).status == "completed"


async def test_a_slow_client_slows_the_model_down_where_there_is_no_log() -> None:
    """E6: what waits for a slow reader is bounded; `store: false` has nothing else to bound it with."""
    slow = asyncio.Event()
    many = [*HELLO[:5], *[HELLO[5]] * 500]
    model = FakeModel(*many, Hang(asyncio.Event()))
    rig = Rig(model, limits=small(buffer_bytes=2000))
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True, store=False)
    async with asyncio.timeout(5):
        await model.called.wait()
    await turns()

    slow.set()
    await reply.until(b"output_text.delta", 2 * 501)
    assert max(map(len, reply.writes)) < 2000 + 1000
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await rig.live.drain(0)


async def test_a_slow_client_that_leaves_frees_the_run() -> None:
    """P3: the run does not wait for a reader that has gone."""
    rig = Rig(FakeModel(*HELLO), limits=small(buffer_bytes=100))
    reply = FakeReply(asyncio.Event())
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await reply.opening.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await rig.settled()

    assert (await rig.the_stored()).status == "completed"


# -- the worker stops --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_a_run_that_is_stopped_while_the_model_is_called_is_refused(stream: bool) -> None:
    """P4: nothing was sent, so nothing stays and the client may try again."""
    rig = Rig(FakeModel(Hang(asyncio.Event())))
    reply = FakeReply()
    running = rig.start(reply, stream=stream)
    async with asyncio.timeout(5):
        await rig.model.called.wait()

    await rig.live.drain(0)
    await running

    assert reply.whole is not None
    assert (reply.whole.status, reply.whole.headers) == (503, {"retry-after": "1"})
    assert await rig.stored() == []
    assert rig.model.aborted.is_set()


async def test_a_run_that_is_stopped_while_it_streams_is_stored_as_failed() -> None:
    """P4, R1: with what was made, and the client is told."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(asyncio.Event())))
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b"output_text.delta", 2)

    await rig.live.drain(0)
    await running

    response = final(check_stream(reply.raw))
    assert response["status"] == "failed"
    assert response["output"][0]["status"] == "incomplete"
    assert response == await rig.retrieve(response["id"])


async def test_a_run_that_is_stopped_while_it_waits_for_its_reader_loses_nothing() -> None:
    """P4: the reader is slow, the run's writes wait; both come to their end."""
    slow = asyncio.Event()
    script: list[Step] = [*HELLO[:5], *[HELLO[5]] * 100, Hang(asyncio.Event())]
    rig = Rig(FakeModel(*script), limits=small(buffer_bytes=1000))
    reply = FakeReply(slow)
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.store.reached["accept"].wait()
        await reply.opening.wait()

    draining = asyncio.ensure_future(rig.live.drain(0))
    await turns()
    slow.set()
    await draining
    await running

    assert final(check_stream(reply.raw))["status"] == "failed"
    assert (await rig.the_stored()).status == "failed"


@pytest.mark.parametrize(
    ("where", "status"), [("finish", "completed"), ("accept", None), ("abandon", None)]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_run_that_is_stopped_while_it_talks_to_the_store_waits_for_it(
    where: str, status: str | None, stream: bool
) -> None:
    """P4: the store's answer is not left open; the client gets its end."""
    steps: list[Step] = [Head(400), b"{}"] if where == "abandon" else [*HELLO]
    rig = Rig(FakeModel(*steps))
    rig.store.holds[where] = gate = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=stream)
    async with asyncio.timeout(5):
        await rig.store.reached[where].wait()

    draining = asyncio.ensure_future(rig.live.drain(0))
    await turns()
    gate.set()
    async with asyncio.timeout(5):
        await draining
    await running

    assert [stored.status for stored in await rig.stored()] == ([status] if status else [])
    if status is None:
        assert reply.whole is not None
        assert reply.whole.status == {"accept": 503, "abandon": 400}[where]
    elif stream:
        assert final(check_stream(reply.raw))["status"] == status
    else:
        assert reply.json["status"] == status


async def test_a_run_that_is_stopped_after_it_opened_without_the_model_is_stored_as_failed() -> (
    None
):
    """P4, R1: the client knows the id, so it stays."""
    rig = Rig(FakeModel(Hang(asyncio.Event())), limits=small(open_after=0.01))
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b"response.in_progress")

    await rig.live.drain(0)
    await running

    assert final(check_stream(reply.raw))["status"] == "failed"
    assert (await rig.the_stored()).status == "failed"


# -- bugs --------------------------------------------------------------------------------------------

BUGS = {
    "in the normaliser": (ResponsesStream, "receive"),
    "in the output": (Output, "receive"),
    "in the machine": (ResponseMachine, "receive"),
    "where an item is closed": (Output, "close"),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("at", range(10))
@pytest.mark.parametrize("place", BUGS)
async def test_a_bug_ends_the_response_in_order(
    place: str, at: int, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: an exception at any step; the client gets its end and nothing stays in progress."""
    owner, name = BUGS[place]
    real = getattr(owner, name)
    count = itertools.count()

    def broken(self: object, *given: object) -> object:
        if next(count) == at:
            raise ZeroDivisionError("a bug")
        return real(self, *given)

    monkeypatch.setattr(owner, name, broken)
    body = replies.stream(reasoning("think", "ing"), text("Hel", "lo"), call("f", "{", "}"))
    rig = Rig(FakeModel(*frames_of(body)))
    reply = await rig.create(stream=stream, tools=TOOLS)
    happened = next(count) > at

    if reply.whole is not None:
        assert reply.whole.status == 500 if happened else 200
    elif place != "where an item is closed":
        assert final(check_stream(reply.raw))["status"] == ("failed" if happened else "completed")
    else:
        # The bug sits where the frames are made: one may be missing, the end may not.
        assert reply.raw.endswith(b"data: [DONE]\n\n")
        terminal = [k for k in kinds(reply) if k in ("response.completed", "response.failed")]
        assert terminal == ["response.failed" if happened else "response.completed"]
    assert {stored.status for stored in await rig.stored()} <= {
        "failed",
        "completed",
        "in_progress",
    }


async def test_a_clock_that_breaks_still_ends_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R1: where even the failure cannot be told in the ordinary way, a 500 is."""
    rig = Rig(FakeModel(*HELLO))
    ticks = iter([1])
    rig.clock = lambda: next(ticks)

    with caplog.at_level(logging.CRITICAL):
        reply = await rig.create()

    assert reply.whole is not None
    assert reply.whole.status == 500


# -- errors as such ----------------------------------------------------------------------------------


def test_every_error_has_a_status_and_a_body() -> None:
    """R15: no adapter has to choose."""
    for error in (EngineError("x"), InvalidRequest("x"), UpstreamFailed("x")):
        assert 400 <= error.status < 600
        assert isinstance(error.type, str)


def test_an_answer_has_no_headers_unless_told() -> None:
    """The content type is the adapter's."""
    assert Answer(200, b"{}").headers == {}


def test_the_media_types_of_streams_and_answers_differ() -> None:
    """Or the JSON tests above would test streams."""
    assert STREAM != JSON


async def test_a_finished_response_waits_for_a_store_that_comes_back() -> None:
    """P2: the stream is silent meanwhile, and then completed: nobody is told of a failure."""
    rig = Rig(FakeModel(*HELLO), limits=small(save_wait=5.0))
    rig.store.faults["finish"] = StorageUnavailable("restarting")
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.store.reached["finish"].wait()
        del rig.store.faults["finish"]
        await running

    assert final(check_stream(reply.raw))["status"] == "completed"
    assert (await rig.the_stored()).status == "completed"


async def test_a_client_that_does_not_read_cannot_keep_a_response_from_its_end() -> None:
    """P1, P3, E6: it is connected and reads nothing; the response completes and is stored."""
    words = [f"word {number} " for number in range(200)]
    rig = Rig(FakeModel(*frames_of(replies.stream(text(*words)))), limits=small(buffer_bytes=1000))
    running = rig.start(FakeReply(slow=asyncio.Event()), stream=True)
    async with asyncio.timeout(5):
        await rig.store.reached["finish"].wait()
    await rig.settled()

    assert (await rig.the_stored()).status == "completed"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_prose_that_was_held_back_is_let_go_when_the_connection_breaks() -> None:
    """R8: what might have become markup was prose, and is not lost."""
    held = frames_of(replies.stream(text("if a ", "<")))[:-3]
    rig = Rig(FakeModel(*held, Break()))

    failed = final(await rig.stream(tools=TOOLS))

    assert failed["status"] == "failed"
    assert failed["output"][0]["content"][0]["text"] == "if a <"
