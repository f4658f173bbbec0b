"""What a dead worker left is ended or run again, by whoever finds it (rule P4)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.errors import StorageUnavailable
from engine.intake import Caller
from engine.ports import EventBatch, Lease
from engine.response.inputs import (
    ArgumentsDelta,
    Input,
    ItemEnded,
    ItemStarted,
    ModelAnswered,
    Resumed,
    TextDelta,
)
from engine.response.turn import TurnRequest
from engine.takeover import MOST_ATTEMPTS
from tests.support import replies
from tests.support.dead_worker import GONE, leave
from tests.support.engine_rig import CALLER, Rig, final, small
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.faulty_store import FaultyStore
from tests.support.replies import text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
BEGUN = (ItemStarted("message"), TextDelta("Hal"))
ENDED = ("completed", "incomplete", "failed", "cancelled")
TOOLS = [{"type": "function", "name": "f"}]


def dead(store: FaultyStore) -> Rig:
    """The worker that will be gone."""
    return Rig(FakeModel(), store=store, limits=small(lease=GONE), worker="replica/1#1")


def alive(store: FaultyStore, *steps: Any, worker: str = "replica/0#1") -> Rig:
    """A worker that sweeps often."""
    return Rig(FakeModel(*(steps or HELLO)), store=store, limits=small(lease=0.04), worker=worker)


async def recovered(rig: Rig, wanted: str) -> dict[str, Any]:
    """Let a worker sweep until the response has ended; return it."""
    rig.recovery.start()
    rig.background.start()
    await rig.becomes(wanted, *ENDED)
    async with asyncio.timeout(5):
        await rig.recovery.stop()
        await rig.background.stop()
    await rig.settled()
    response: dict[str, Any] = await rig.retrieve(wanted)
    return response


@pytest.mark.parametrize("inputs", [(), BEGUN], ids=["not logged yet", "begun"])
async def test_a_stream_in_the_foreground_fails_and_can_be_read_to_its_end(inputs: Any) -> None:
    """P4, R1, R12: its items are closed, its numbering goes on, its error says what happened."""
    store = FaultyStore()
    lease = await leave(dead(store), *inputs, stream=True)

    response = await recovered(alive(store), lease.response_id)

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert "worker" in response["error"]["message"]
    rig = alive(store)
    events = check_stream(await rig.log(lease.response_id), taken_over=True)
    assert final(events) == response
    # What its client saw last may be in no log: what follows has numbers that it cannot have seen.
    assert events[-1]["sequence_number"] > 1_000_000
    assert rig.model.bodies == []


async def test_an_answer_in_the_foreground_that_is_not_streamed_fails_too() -> None:
    """P4."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN)
    response = await recovered(alive(store), lease.response_id)
    assert (response["status"], response["output"]) == ("failed", [])


async def test_a_failed_response_is_numbered_on_also_where_its_log_cannot_be_read_back() -> None:
    """P4: a log of another release: nothing is made up, and nothing is stuck."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN, stream=True)
    await store.append(lease, EventBatch(5, 6, b'event: x\ndata: {"type":"x"}\n\n' * 2))

    response = await recovered(alive(store), lease.response_id)

    assert response["status"] == "failed"
    raw = await alive(store).log(lease.response_id)
    assert b'data: {"type":"error","sequence_number":1000007,' in raw
    assert b'data: {"type":"response.failed","sequence_number":1000008,' in raw


@pytest.mark.parametrize("stream", [True, False])
async def test_a_response_in_the_background_is_run_again(stream: bool) -> None:
    """P4, P6: in one stream, the first run's item closed as it was; the model is sent what it was sent."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN, background=True, stream=stream, instructions="be kind")
    rig = alive(store)

    response = await recovered(rig, lease.response_id)

    assert response["status"] == "completed"
    texts = [item["content"][0]["text"] for item in response["output"]]
    assert texts == (["Hal", "Hello"] if stream else ["Hello"])
    [sent] = rig.model.bodies
    assert json.loads(sent)["instructions"] == "be kind"
    assert json.loads(sent)["input"] == [{"role": "user", "content": "hi"}]
    [headers] = rig.model.headers
    assert headers.items() >= CALLER.model_headers.items()
    if stream:
        events = check_stream(await rig.log(lease.response_id), taken_over=True)
        assert final(events) == response


async def test_a_later_turn_is_sent_the_second_run_only() -> None:
    """M2: what the first run had made is shown and not sent."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN, background=True, stream=True)
    rig = alive(store)
    await recovered(rig, lease.response_id)
    await rig.create(previous_response_id=lease.response_id, input="and?")
    sent = [item["content"] for item in json.loads(rig.model.bodies[-1])["input"]]
    assert sent == ["hi", "Hello", "and?"]


async def test_a_turn_that_was_begun_anew_is_not_sent_what_it_had_made_before() -> None:
    """M2, P4: nor where its worker dies then, and a call that it had made ends the response."""
    store = FaultyStore()
    asked = TurnRequest(b"")
    anew = (*BEGUN, Resumed(asked), ModelAnswered(), ItemStarted("function_call", "f"))
    whole = (*anew, ArgumentsDelta("{}"), ItemEnded("completed"))
    lease = await leave(dead(store), *whole, background=True, stream=True, tools=TOOLS)
    rig = alive(store)
    response = await recovered(rig, lease.response_id)
    assert [item["status"] for item in response["output"]] == ["incomplete", "completed"]
    output = {"type": "function_call_output", "output": "7"}
    output["call_id"] = response["output"][1]["call_id"]
    await rig.create(previous_response_id=lease.response_id, input=[output], tools=TOOLS)
    kinds = [item.get("type", "message") for item in json.loads(rig.model.bodies[-1])["input"]]
    assert kinds == ["message", "function_call", "function_call_output"]


async def test_the_model_is_sent_the_same_bytes_again() -> None:
    """M9, M6: history, calls and their outputs included."""
    store = FaultyStore()
    asking = Rig(FakeModel(*frames_of(replies.stream(replies.call("f", '{"a":1}')))), store=store)
    called = (await asking.create(tools=TOOLS)).json
    output = {
        "type": "function_call_output",
        "call_id": called["output"][0]["call_id"],
        "output": "7",
    }
    fields = {
        "input": [output, {"role": "user", "content": "so?"}],
        "previous_response_id": called["id"],
        "tools": TOOLS,
        "temperature": 0.5,
        "seed": 3,
        "background": True,
    }
    lost = Rig(FakeModel(), store=store, limits=small(lease=GONE), worker="replica/1#1")
    body = json.dumps({"model": "m", **fields}).encode()
    run = await lost.admit(body)
    lease = await leave(lost, *BEGUN, **fields)
    rig = alive(store)
    await recovered(rig, lease.response_id)
    assert rig.model.bodies == [run.first.turn.body]  # type: ignore[union-attr]


async def test_a_store_that_goes_away_in_a_takeover_fails_nothing() -> None:
    """P2, P4: the run begins once the history can be read."""
    store = Away()
    lease = await leave(dead(store), *BEGUN, background=True, stream=True)
    store.failures, store.also_context = 3, True
    response = await recovered(alive(store), lease.response_id)
    assert response["status"] == "completed"
    assert store.failures == 0


async def test_what_this_release_refuses_is_failed_with_the_reason() -> None:
    """P4: a stricter bound; it is not tried for ever."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN, background=True, tools=TOOLS)
    strict = Rig(FakeModel(), store=store, limits=small(lease=0.04, tools=0))
    response = await recovered(strict, lease.response_id)
    assert response["status"] == "failed"
    assert "tools" in response["error"]["message"]


@pytest.mark.parametrize("cut", [True, False])
async def test_a_call_that_was_made_is_not_asked_for_twice(cut: bool) -> None:
    """P4: its client would run it twice; the turn ends with the calls that it has."""
    store = FaultyStore()
    inputs: list[Input] = [
        ItemStarted("function_call", "f"),
        ArgumentsDelta("{}"),
        ItemStarted("message"),
    ]
    if not cut:
        inputs = [*inputs[:2], ItemStarted("function_call", "f"), *inputs[1:2]]
    lease = await leave(dead(store), *inputs, background=True, stream=True, tools=TOOLS)
    rig = alive(store)

    response = await recovered(rig, lease.response_id)

    assert rig.model.bodies == []
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "worker_lost"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    check_stream(await rig.log(lease.response_id))


async def test_a_response_that_kills_its_workers_is_given_up() -> None:
    """P4: three attempts."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN, background=True, stream=True)
    for number in range(MOST_ATTEMPTS - 1):
        [claim] = await store.claim(f"replica/2#{number}", GONE, queued=0, expired=1)
        assert alive(store).takeover.runs_again(claim)
    rig = alive(store)
    response = await recovered(rig, lease.response_id)
    assert response["status"] == "failed"
    assert rig.model.bodies == []


async def test_a_cancel_that_was_asked_for_is_kept() -> None:
    """A response whose worker died before it heard of it ends as cancelled."""
    store = FaultyStore()
    lease = await leave(dead(store), *BEGUN, background=True, stream=True)
    await store.ask_cancel(lease.tenant, lease.response_id, "replica/2#1", 1.0)
    response = await recovered(alive(store), lease.response_id)
    assert response["status"] == "cancelled"
    check_stream(await alive(store).log(lease.response_id))


async def test_what_needs_the_clients_credentials_is_not_run_again() -> None:
    """X4: they are not stored; a response that was handed over without them fails."""
    store = FaultyStore()
    caller = Caller("default", {"authorization": "Bearer secret"})
    lease = await leave(dead(store), *BEGUN, stream=True, caller=caller)
    await store.release(lease)
    rig = alive(store)
    response = await recovered(rig, lease.response_id)
    assert response["status"] == "failed"
    assert rig.model.bodies == []


async def test_a_restarted_worker_takes_what_its_former_life_left_at_once() -> None:
    """P4: also where the lease has long to run."""
    store = FaultyStore()
    former = Rig(FakeModel(), store=store, limits=small(lease=1000), worker="replica/0#1")
    other = Rig(FakeModel(), store=store, limits=small(lease=1000), worker="replica/1#1")
    mine = await leave(former, *BEGUN, stream=True)
    foreign = await leave(other, *BEGUN, stream=True)
    rig = alive(store, worker="replica/0#2")
    assert (await recovered(rig, mine.response_id))["status"] == "failed"
    assert (await rig.retrieve(foreign.response_id))["status"] == "in_progress"


async def test_a_thousand_expired_runs_are_taken_a_few_at_a_time() -> None:
    """X5, P4: all of them end."""
    store = Counting()
    gone, rig = dead(store), alive(store)
    leases = [await leave(gone, *BEGUN, stream=True) for _ in range(1000)]
    await recovered(rig, leases[-1].response_id)
    for lease in leases:
        assert (await rig.retrieve(lease.response_id))["status"] == "failed"
    assert store.most <= 16


class Counting(FaultyStore):
    """Counts how many reads of a log go on at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0

    async def read_events(self, *args: Any, **kwargs: Any) -> Any:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(0)
            return await super().read_events(*args, **kwargs)
        finally:
            self._now -= 1


async def test_a_full_worker_leaves_the_rest_to_others() -> None:
    """P4: what it has no room for goes to the queue, and runs in the end."""
    store = FaultyStore()
    gone = dead(store)
    leases = [await leave(gone, *BEGUN, background=True) for _ in range(9)]
    gate = asyncio.Event()
    rig = alive(store, Hang(gate), *HELLO)
    recovering = asyncio.ensure_future(recovered(rig, leases[-1].response_id))
    await rig.until(lambda: len(rig.model.bodies) == 2)
    gate.set()
    await recovering
    for lease in leases:
        assert (await rig.retrieve(lease.response_id))["status"] == "completed"


async def test_recovery_outlasts_a_store_that_is_away() -> None:
    """P2, P4: it goes on where it was."""
    store = Away()
    lease = await leave(dead(store), *BEGUN, stream=True)
    store.failures = 3
    response = await recovered(alive(store), lease.response_id)
    assert response["status"] == "failed"
    assert store.failures == 0


async def test_after_an_absence_of_the_store_owners_may_renew_before_anything_is_taken() -> None:
    """P2: their leases ran out while nobody could renew; the runs themselves went on."""
    store = Renewing()
    store.left = await leave(dead(store), *BEGUN, stream=True)
    store.failures = 1
    rig = alive(store)
    rig.recovery.start()
    await rig.until(lambda: store.claims == 3)
    await rig.recovery.stop()
    assert (await rig.retrieve(store.left.response_id))["status"] == "in_progress"


class Away(FaultyStore):
    """Fails so many claims and reads."""

    failures = 0
    also_context = False

    async def load_context(self, *args: Any, **kwargs: Any) -> Any:
        if self.also_context:
            self._fail()
        return await super().load_context(*args, **kwargs)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return await super().claim(*args, **kwargs)

    async def read_events(self, *args: Any, **kwargs: Any) -> Any:
        self._fail()
        return await super().read_events(*args, **kwargs)


class Renewing(Away):
    """Once it is back, the owner of `left` renews its lease."""

    left: Lease
    claims = 0

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        self.claims += 1
        return await super().claim(*args, **kwargs)

    async def cancelled(self, worker: str) -> list[Lease]:
        assert await self.renew([self.left], 1000.0) == []
        return await super().cancelled(worker)


async def test_a_late_writer_changes_nothing() -> None:
    """P4: the fencing token of the first owner is stale."""
    store = FaultyStore()
    gate = asyncio.Event()
    late = Rig(
        FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]),
        store=store,
        limits=small(lease=1000),
        worker="replica/1#1",
    )
    reply = FakeReply()
    running = late.start(reply, stream=True)
    await reply.until(b"output_text.delta")
    wanted = (await late.the_stored()).id
    thief = alive(store)
    [claim] = await store.inherit("replica/1#2", 1000, limit=1)
    await thief.takeover.take_over(claim)
    await thief.settled()
    gate.set()
    await running
    assert final(check_stream(reply.raw))["status"] == "failed"
    response = await thief.retrieve(wanted)
    assert response["status"] == "failed"
    assert "worker" in response["error"]["message"]
    assert isinstance(claim.lease, Lease)
