"""`engine.live`: leases renewed together, and what becomes of a run whose lease is lost (rule P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import StorageUnavailable
from engine.ports import Claim, Lease
from engine.ports.meters import Meters
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig, final, small, turns
from tests.support.fake_model import FakeModel, Hang, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call, text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
FOR_EVER = asyncio.Event()
LEASE = 0.03


class Renewed(FaultyStore):
    """Keeps what is renewed."""

    def __init__(self) -> None:
        super().__init__()
        self.renewed: list[list[Lease]] = []

    async def renew(self, leases: list[Lease], lease_seconds: float) -> list[Lease]:
        self.renewed.append(leases)
        return await super().renew(leases, lease_seconds)


class Losses(Meters):
    """Counts lost leases."""

    def __init__(self) -> None:
        self.lost = 0

    def lease_lost(self) -> None:
        self.lost += 1


async def steal(rig: Rig) -> None:
    """Take the response away, as a worker would that found its lease expired."""
    stored = await rig.the_stored()
    await rig.store.delete(CALLER.tenant, stored.id)


def chores() -> list[asyncio.Task[object]]:
    """Return what is done again and again just now."""
    return [task for task in asyncio.all_tasks() if "_repeat" in repr(task.get_coro())]


async def test_all_leases_are_renewed_together_while_something_runs() -> None:
    """P4: one call for all, and none where nothing runs."""
    store = Renewed()
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]), limits=small(lease=LEASE), store=store)
    replies_ = [FakeReply() for _ in range(5)]
    running = [rig.start(reply, stream=True) for reply in replies_]
    await rig.until(lambda: [leases for leases in store.renewed if len(leases) == 5])
    assert chores()
    gate.set()
    await asyncio.gather(*running)
    await rig.settled()

    assert not chores()
    assert all(final(check_stream(r.raw))["status"] == "completed" for r in replies_)


async def test_a_renewal_that_fails_is_tried_again_and_ends_no_run() -> None:
    """P2, P4: the store is away for longer than the lease; nobody took the run, so it completes."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]), limits=small(lease=LEASE))
    rig.store.faults["renew"] = StorageUnavailable("gone")
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        begun = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < begun + 2 * LEASE:
            rig.store.reached["renew"].clear()
            await rig.store.reached["renew"].wait()
    del rig.store.faults["renew"]
    gate.set()
    await running

    assert final(check_stream(reply.raw))["status"] == "completed"


async def test_a_chore_that_meets_a_bug_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    """P4: and the bug is in the log."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]), limits=small(lease=LEASE))
    rig.store.faults["renew"] = ZeroDivisionError("a bug")
    running = rig.start(FakeReply(), stream=True)
    async with asyncio.timeout(5):
        for _ in range(2):
            rig.store.reached["renew"].clear()
            await rig.store.reached["renew"].wait()
    gate.set()
    await running
    assert "a chore broke" in caplog.text


SCRIPTS: dict[str, list[Step]] = {
    "while the model is called": [Hang(FOR_EVER)],
    "while it streams": [*HELLO[:6], Hang(FOR_EVER)],
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", SCRIPTS)
async def test_a_run_whose_lease_is_lost_stops_and_writes_nothing(where: str, stream: bool) -> None:
    """P4: the model's call is aborted; its client is told of a failure."""
    losses = Losses()
    rig = Rig(FakeModel(*SCRIPTS[where]), limits=small(lease=LEASE), meters=losses)
    reply = FakeReply()
    running = rig.start(reply, stream=stream)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
        await turns()
        await steal(rig)
        await running

    assert losses.lost == 1
    assert rig.model.aborted.is_set()
    assert not rig.store.reached["finish"].is_set()
    assert await rig.stored() == []
    if stream and where == "while it streams":
        events = check_stream(reply.raw)
        assert events[-2]["code"] == "lease_lost"
    else:
        assert reply.whole is not None
        assert reply.whole.status == 500


async def test_a_run_whose_lease_is_lost_while_it_is_saved_tells_of_no_success() -> None:
    """P1, P4: the stale token changes nothing, and the client hears that."""
    losses = Losses()
    rig = Rig(FakeModel(*HELLO), limits=small(lease=LEASE), meters=losses)
    rig.store.holds["finish"] = gate = asyncio.Event()
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.store.reached["finish"].wait()
    await steal(rig)
    gate.set()
    await running

    assert losses.lost == 1
    assert final(check_stream(reply.raw))["status"] == "failed"
    assert await rig.stored() == []


@pytest.mark.parametrize("ends", ["completes", "is handed over"])
async def test_a_lease_that_is_given_back_is_not_lost(
    ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P4: also where that happens while the leases are renewed; an alert counts those that are lost."""
    losses, store, gate = Losses(), Renewed(), asyncio.Event()
    hangs: list[Step] = [*HELLO[:5], Hang(FOR_EVER)]
    rig = Rig(
        FakeModel(*hangs, turns=[[*HELLO[:5], Hang(gate), *HELLO[5:]]]),
        limits=small(lease=LEASE),
        store=store,
        meters=losses,
    )
    one = rig.start(FakeReply(), stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    other = rig.start(FakeReply(), stream=True)
    await rig.until(lambda: [leases for leases in store.renewed if len(leases) == 2])
    store.holds["renew"] = held = asyncio.Event()
    store.reached["renew"].clear()
    async with asyncio.timeout(5):
        await store.reached["renew"].wait()
    # Which leases are renewed is settled now.
    assert len(store.renewed[-1]) == 2
    if ends == "completes":
        gate.set()
        async with asyncio.timeout(5):
            await one
    else:
        await leave(rig, one)
        rig.live.hand_over()
        await rig.until(lambda: len(rig.live) == 1)
    seen = len(store.renewed)
    held.set()
    await rig.until(lambda: len(store.renewed) > seen)

    assert losses.lost == 0
    assert "is lost" not in caplog.text
    await leave(rig, other)
    await rig.live.drain(0)


async def test_the_log_tells_of_a_lost_lease_before_the_renewal_does() -> None:
    """P4: the next batch is refused."""
    gate = asyncio.Event()
    script: list[Step] = [*HELLO[:5], Hang(gate), *HELLO[5:6], Hang(FOR_EVER)]
    rig = Rig(FakeModel(*script), limits=small(log_interval=0.0))
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
        await turns()
        await steal(rig)
        gate.set()
        await running

    assert rig.model.aborted.is_set()
    assert final(check_stream(reply.raw))["error"]["code"] == "server_error"


@pytest.mark.parametrize("logs", [True, False])
async def test_an_owner_that_comes_back_changes_nothing(logs: bool) -> None:
    """P4: its lease ran out while it could not renew it; the fencing token refuses all that it writes."""
    gate = asyncio.Event()
    interval = 0.0 if logs else 60.0
    rig = Rig(
        FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]),
        limits=small(lease=0.03, log_interval=interval),
    )
    rig.store.faults["renew"] = StorageUnavailable("not for this worker")
    other = Rig(FakeModel(), store=rig.store, worker="replica/1#1")
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
        claims: list[Claim] = []
        while not claims:
            await asyncio.sleep(0.01)
            claims = await rig.store.claim(other.live.worker, 30.0, queued=0, expired=1)
        await asyncio.wait({await other.takeover.take_over(claims[0])})
    stored = await rig.the_stored()
    log = await rig.log(stored.id)
    gate.set()
    await running

    assert stored.status == "failed"
    assert await rig.the_stored() == stored
    assert await rig.log(stored.id) == log
    assert final(check_stream(log, taken_over=True)) == await rig.retrieve(stored.id)
    assert final(check_stream(reply.raw))["status"] == "failed"


# -- handing over ------------------------------------------------------------------------------------


async def leave(rig: Rig, running: asyncio.Task[FakeReply]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def stay(rig: Rig, running: asyncio.Task[FakeReply]) -> None:
    """Keep on reading."""


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", SCRIPTS)
async def test_a_run_that_nobody_waits_for_is_handed_over(where: str, stream: bool) -> None:
    """E4: another worker runs it again; its log is there as far as it got, and it has no end."""
    rig = Rig(FakeModel(*SCRIPTS[where]), limits=small(log_interval=60.0))
    running = rig.start(FakeReply(), stream=stream)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    await turns()
    await leave(rig, running)

    rig.live.hand_over()
    await rig.settled()

    assert rig.model.aborted.is_set()
    stored = await rig.the_stored()
    assert stored.status == "in_progress"
    [claim] = await rig.store.claim("replica/1#1", 30.0, queued=1, expired=0)
    assert claim.lease.response_id == stored.id
    if stream and where == "while it streams":
        log = await rig.log(stored.id)
        assert log.count(b"event: response.output_text.delta") >= 1
        assert b"response.completed" not in log
        assert b"response.failed" not in log


@pytest.mark.parametrize(
    ("whose", "status"), [(leave, "in_progress"), (stay, "failed")], ids=["left", "stays"]
)
async def test_a_drain_hands_over_and_stops_the_rest(
    whose: Callable[[Rig, asyncio.Task[FakeReply]], Awaitable[None]], status: str
) -> None:
    """E4, P4: also where the time is up while the store is still writing it."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(FOR_EVER)))
    rig.store.holds["append"] = gate = asyncio.Event()
    running = rig.start(FakeReply(), stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    await turns()
    await whose(rig, running)

    rig.live.hand_over()
    draining = asyncio.ensure_future(rig.live.drain(0))
    await turns()
    gate.set()
    async with asyncio.timeout(5):
        await draining
        await asyncio.gather(running, return_exceptions=True)

    assert (await rig.the_stored()).status == status
    assert len(rig.live) == 0


@pytest.mark.parametrize(("stream", "status"), [(True, "in_progress"), (False, "failed")])
async def test_a_run_is_not_handed_over_without_what_its_tools_did(
    stream: bool, status: str
) -> None:
    """E4, T2: without a log the next worker would run them again; what was made is kept."""
    paying = FakeProvider("s", "pay")
    rig = Rig(
        FakeModel(Hang(FOR_EVER), turns=[frames_of(replies.stream(call("pay", "{}")))]),
        providers=FakeServers(paying),
    )
    running = rig.start(FakeReply(), stream=stream, tools=[server("s")])
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
        await turns()
        await leave(rig, running)
        await rig.live.drain(0)

    assert len(paying.calls) == 1
    stored = await rig.the_stored()
    assert stored.status == status
    if not stream:
        assert await rig.store.claim("replica/1#1", 30.0, queued=1, expired=1) == []
        output = (await rig.retrieve(stored.id))["output"]
        assert [item.get("output") for item in output if item["type"] == "mcp_call"] == ["pay {}"]


async def test_a_run_that_cannot_be_handed_over_is_left_to_its_lease(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P4: whoever finds it expired takes it over."""
    rig = Rig(FakeModel(*HELLO[:6], Hang(FOR_EVER)))
    rig.store.faults["append"] = StorageUnavailable("gone")
    running = rig.start(FakeReply(), stream=True)
    async with asyncio.timeout(5):
        await rig.model.silent.wait()
    await turns()
    await leave(rig, running)

    rig.live.hand_over()
    await rig.settled()

    assert (await rig.the_stored()).status == "in_progress"
    assert "could not be handed over" in caplog.text
