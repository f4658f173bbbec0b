"""Traces of responses, by the real tracer of the SDK and fakes at all other ports (docs/traces.md)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.intake import Caller
from engine.ports.tracing import NO_TRACES
from tests.support import replies
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import CALLER, Rig, small
from tests.support.fake_model import FakeModel, Head, frames_of
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call, text
from tests.support.traced import Traced, trace_ids
from tests.support.word_search import Passage, WordSearch

HELLO = frames_of(replies.stream(text("Hel", "lo"), input_tokens=7))
CALLING = frames_of(replies.stream(call("look", '{"where": "SECRET"}')))
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traced_caller(flags: str = "01") -> Caller:
    headers = {**CALLER.model_headers, "traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
    return msgspec.structs.replace(CALLER, model_headers=headers)


async def test_a_response_is_one_trace_below_its_caller() -> None:
    """Load, accept, turn and save are its parts; the turn carries its own span to the model server."""
    traced = Traced()
    rig = Rig(FakeModel(*HELLO), tracer=traced.tracer)

    response = (await rig.create(caller=traced_caller())).json
    await rig.settled()

    assert trace_ids(traced) == {TRACE}
    assert traced.parent_of("response") == PARENT
    for part in ("load history", "accept", "chat m", "save"):
        assert traced.parent_of(part) == "response"
    context = traced.named("chat m").context
    assert context is not None
    assert rig.model.headers[0]["traceparent"] == f"00-{TRACE}-{context.span_id:016x}-01"
    told = traced.attributes("response")
    assert told["gen_ai.response.id"] == response["id"]
    assert (told["holdfast.status"], told["holdfast.turns"]) == ("completed", 1)
    assert told["gen_ai.usage.input_tokens"] == response["usage"]["input_tokens"]
    assert traced.attributes("chat m")["gen_ai.operation.name"] == "chat"


async def test_where_nothing_is_traced_the_callers_trace_passes_through() -> None:
    """The model server is told what Envoy said; the log line knows the trace."""
    rig = Rig(FakeModel(*HELLO), tracer=NO_TRACES)
    caller = traced_caller()

    reply = await rig.create(caller=caller)

    assert rig.model.headers[0]["traceparent"] == caller.model_headers["traceparent"]
    assert reply.told is not None
    assert reply.told.facts()["trace_id"] == TRACE


async def test_a_trace_that_the_caller_does_not_record_is_not_recorded_here() -> None:
    """Sampling is the caller's, and the decision travels on."""
    traced = Traced()
    rig = Rig(FakeModel(*HELLO), tracer=traced.tracer)

    await rig.create(caller=traced_caller("00"))
    await rig.settled()

    assert traced.spans == ()
    told = rig.model.headers[0]["traceparent"]
    assert told.startswith(f"00-{TRACE}-")
    assert told.endswith("-00")


async def test_a_refused_request_is_a_trace_that_failed() -> None:
    """By its code, never by its message, which repeats what was sent."""
    traced = Traced()
    rig = Rig(FakeModel(*HELLO), tracer=traced.tracer)

    await rig.create(previous_response_id="resp_SECRET")

    span = traced.named("response")
    assert not span.status.is_ok
    assert traced.attributes("response")["error.type"] == "previous_response_not_found"
    assert "SECRET" not in str([s.to_json() for s in traced.spans])


async def test_a_turn_that_fails_is_told_by_its_code() -> None:
    """The turn and the response have failed; nothing of the server's message is in them."""
    traced = Traced()
    body = b'{"error": {"message": "SECRET", "type": "x", "code": "context_length_exceeded"}}'
    rig = Rig(FakeModel(Head(400), body), tracer=traced.tracer)

    reply = await rig.create()
    await rig.settled()

    assert reply.whole is not None
    assert reply.whole.status == 400
    assert traced.attributes("response")["holdfast.status"] == "refused"
    for name in ("response", "chat m"):
        assert not traced.named(name).status.is_ok
    assert "SECRET" not in str([s.to_json() for s in traced.spans])


async def test_what_a_search_has_found_is_content_too() -> None:
    """It is in the item's own fields; the conventions want a list of reasons to end (docs/traces.md)."""
    files = WordSearch()
    files.put("vs_1", Passage("f", "f.txt", "SECRET words"))
    traced = Traced(content=True)
    turn = frames_of(replies.stream(call("file_search", '{"queries": ["SECRET"]}')))
    rig = Rig(FakeModel(*HELLO, turns=[turn]), files=files, tracer=traced.tracer)

    await rig.create(tools=[{"type": "file_search", "vector_store_ids": ["vs_1"]}])
    await rig.settled()

    found = json.loads(traced.attributes("execute_tool file_search")["gen_ai.tool.call.result"])
    assert [each["text"] for each in found] == ["SECRET words"]
    ends = [dict(s.attributes or {}) for s in traced.spans if s.name == "chat m"]
    assert [end["gen_ai.response.finish_reasons"] for end in ends] == [("stop",), ("stop",)]


async def test_a_response_in_the_background_goes_on_in_its_trace() -> None:
    """The trace is kept with the request, so that whoever runs it, goes on with it."""
    traced = Traced()
    rig = Rig(FakeModel(*HELLO), limits=small(lease=30.0), tracer=traced.tracer)

    queued = (await rig.create(background=True, caller=traced_caller())).json
    assert traced.attributes("response")["holdfast.status"] == "queued"
    rig.background.start()
    await rig.becomes(queued["id"], "completed")
    await rig.background.stop()
    await rig.settled()

    assert trace_ids(traced) == {TRACE}
    assert traced.parent_of("response taken over") == "response"
    assert traced.parent_of("chat m") == "response taken over"
    assert traced.attributes("response taken over")["gen_ai.response.id"] == queued["id"]


@pytest.mark.parametrize("content", [False, True])
async def test_content_is_traced_where_somebody_asked_for_that(*, content: bool) -> None:
    """P5: by default names, counts and times; else what was asked, called and answered."""
    traced = Traced(content=content)
    provider = FakeProvider("s", "look")
    rig = Rig(
        FakeModel(*HELLO, turns=[CALLING]), providers=FakeServers(provider), tracer=traced.tracer
    )

    await rig.create(tools=[server("s")], input="SECRET")
    await rig.settled()

    tool = traced.attributes("execute_tool look")
    assert (tool["gen_ai.tool.name"], tool["holdfast.tool.server"]) == ("look", "s")
    said = json.dumps([s.to_json() for s in traced.spans])
    assert ("SECRET" in said) == content
    if content:
        assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"where": "SECRET"}
        turns: list[Any] = [
            json.loads(str((s.attributes or {})["holdfast.turn.request"]))
            for s in traced.spans
            if s.name == "chat m"
        ]
        assert turns[0]["input"][-1]["content"] in (
            "SECRET",
            [{"type": "input_text", "text": "SECRET"}],
        )


async def test_what_a_dead_worker_left_goes_on_in_its_trace() -> None:
    """P4: the trace is among what is stored of the request, whoever reads it."""
    traced, store = Traced(), FaultyStore()
    dead = Rig(FakeModel(), store=store, limits=small(lease=GONE), worker="replica/1#1")
    lease = await leave(dead, caller=traced_caller(), stream=True)
    alive = Rig(FakeModel(*HELLO), store=store, limits=small(lease=0.04), tracer=traced.tracer)

    alive.recovery.start()
    await alive.becomes(lease.response_id, "failed")
    await alive.recovery.stop()
    await alive.settled()

    assert trace_ids(traced) == {TRACE}
    assert traced.parent_of("response taken over") == PARENT
    assert not traced.named("response taken over").status.is_ok
    assert traced.attributes("response taken over")["holdfast.attempt"] == 2


async def test_a_retry_tells_of_the_response_that_it_is_answered_with() -> None:
    """Envoy's line of the second exchange has the first one's id, and no tokens of its own."""
    rig = Rig(FakeModel(*HELLO))
    caller = msgspec.structs.replace(CALLER, idempotency_key="k")

    first = await rig.create(caller=caller)
    second = await rig.create(caller=caller)

    assert second.json["id"] == first.json["id"]
    assert second.told is not None
    assert second.told.facts()["response_id"] == first.json["id"]
    assert second.told.facts()["status"] == "repeated"
    assert "error" not in second.told.facts()
