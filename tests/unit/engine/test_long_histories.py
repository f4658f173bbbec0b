"""Histories that are too long to be sent are refused before they are read (rule X5)."""

from __future__ import annotations

import json
from typing import Any

from storage.limits import Reads
from tests.support import replies
from tests.support.counting_model import CountingModel, inputs, words
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import CALLER, Rig, small
from tests.support.fake_model import frames_of
from tests.support.faulty_store import FaultyStore
from tests.support.replies import text

DONE = frames_of(replies.stream(text("ok")))
SUMMARY = frames_of(replies.stream(text("It was about w.")))
MOST = 3000
LONG = words(1000)
"""Of 2 bytes each: two such messages are too many."""


def a_rig(*turns: list[bytes], store: FaultyStore | None = None, **more: Any) -> Rig:
    store = FaultyStore(Reads(context=MOST)) if store is None else store
    limits = small(context_bytes=MOST, **more)
    return Rig(CountingModel(*DONE, turns=list(turns)), store=store, limits=limits)


async def test_a_response_is_not_continued_beyond_it() -> None:
    """X5: the same error as for what was read, with the size of all."""
    rig = a_rig()
    first = (await rig.create(input=LONG)).json
    second = await rig.create(input=words(300), previous_response_id=first["id"])
    third = await rig.create(input=LONG, previous_response_id=second.json["id"])
    error = third.json["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    calls = len(rig.model.bodies)
    rig.store._reads = Reads(context=MOST // 2)
    fourth = await rig.create(input="and?", previous_response_id=second.json["id"])
    assert fourth.whole is not None
    assert (fourth.whole.status, fourth.json["error"]["code"]) == (400, "context_length_exceeded")
    assert len(rig.model.bodies) == calls


async def test_neither_is_a_conversation() -> None:
    """X5, M7: what was added to it as well; taking items out helps."""
    rig = a_rig()
    items = [{"role": "user", "content": LONG, "id": name} for name in ("a", "b", "c")]
    made = await rig.conversations.create(CALLER, json.dumps({"items": items}).encode(), "")
    name = json.loads(made.body)["id"]
    reply = await rig.create(input="and?", conversation=name)
    error = reply.json["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    for item in ("a", "b"):
        await rig.conversations.delete_item(CALLER, name, item, "")
    assert (await rig.create(input="and?", conversation=name)).json["status"] == "completed"


async def test_what_a_summary_covers_does_not_count() -> None:
    """X5, M2: neither where it is stored, nor where the client brings it."""
    rig = a_rig(DONE, SUMMARY)
    first = (await rig.create(input=LONG)).json
    compacting = [{"type": "compaction", "compact_threshold": 50}]
    second = await rig.create(
        input="one", previous_response_id=first["id"], context_management=compacting
    )
    rig.store._reads = Reads(context=1000)
    third = await rig.create(input="two", previous_response_id=second.json["id"])
    assert third.json["status"] == "completed"
    brought = [second.json["output"][0], {"role": "user", "content": "three"}]
    fourth = await rig.create(input=brought, previous_response_id=first["id"])
    assert fourth.json["status"] == "completed"
    assert "It was about w." in json.dumps(inputs(rig.model))
    assert LONG not in json.dumps(inputs(rig.model))


async def test_a_run_that_is_taken_over_is_not_sent_half_of_it() -> None:
    """X5, M2: it fails, where the bound is lower now."""
    gone = a_rig(lease=GONE)
    first = (await gone.create(input=LONG)).json
    lease = await leave(gone, background=True, previous_response_id=first["id"])
    gone.store._reads = Reads(context=1000)
    at = a_rig(store=gone.store, lease=0.04)
    at.background.start()
    done = await at.becomes(lease.response_id, "failed")
    await at.background.stop()
    await at.settled()
    assert done["error"]["code"] == "context_length_exceeded"
    assert at.model.bodies == []
