"""Workers killed with SIGKILL at random moments: nothing is lost, nothing is double, nothing is stuck."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.support import replies
from tests.support.persistent import Kept, Persistent
from tests.support.replies import text
from tests.support.scripts import Pace
from tests.support.stack import Stack, eventually
from tests.support.stream_rules import check_stream
from tests.support.wire import Wire

ROUNDS, EACH = 10, 20
ANSWER = replies.stream(text(*[f"word{n} " for n in range(30)]))
WHOLE = "".join(f"word{n} " for n in range(30))
PATIENCE = 60.0

_UNFINISHED = """
    SELECT count(*) FROM responses
    WHERE model = %s AND status IN ('queued', 'in_progress')
"""
_DOUBLE = """
    SELECT count(*) FROM (
        SELECT i.thread_id, i.id FROM items i JOIN responses r ON r.id = i.response_id
        WHERE r.model = %s GROUP BY 1, 2 HAVING count(*) > 1
    ) double
"""


@pytest.mark.timeout(300)
async def test_200_responses_survive_10_kills(
    rugged: Stack, rugged_wire: Wire, record_property: Callable[[str, object], None]
) -> None:
    """P3, P4, P6, R1: streams, whole answers and background runs; each client gets one true ending."""
    model = rugged.plays(Pace(ANSWER, 0.01))
    randomly = random.Random(20261121)
    times: list[float] = []
    endings: list[tuple[Kept, bool]] = []
    for round_ in range(ROUNDS):
        client = Persistent(rugged_wire)
        index = round_ % 2
        victim = rugged.worker(index)
        moment = randomly.randint(1, 150)
        async with asyncio.TaskGroup() as group:
            tasks = [
                (group.create_task(_ask(client, model, kind)), background)
                for kind, background in _KINDS * (EACH // len(_KINDS))
            ]
            await eventually(partial(_has_seen, client, moment))
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            await eventually(lambda: _none_left(rugged, model), timeout=PATIENCE)
            times.append(time.monotonic() - killed)
        endings += [(task.result(), background) for task, background in tasks]
        await rugged.replaced(index, victim)

    assert len(endings) == 200
    heard = [(kept, background) for kept, background in endings if kept.id is not None]
    for kept, background in heard:
        await _agrees(rugged_wire, kept, background)
    assert await rugged.sql(_DOUBLE, model) == [(0,)]
    assert len({kept.id for kept, _ in heard}) == len(heard)
    [[stored]] = await rugged.sql("SELECT count(*) FROM responses WHERE model = %s", model)
    # What was refused left nothing; what was accepted and broke off is there, heard of or not.
    assert len(heard) <= stored <= 200
    times.sort()
    record_property("seconds to a terminal state, median", round(times[len(times) // 2], 2))
    record_property("seconds to a terminal state, longest", round(times[-1], 2))


_KINDS = (("stream", False), ("whole", False), ("background", True), ("background stream", True))


async def _ask(client: Persistent, model: str, kind: str) -> Kept:
    background = kind.startswith("background")
    if kind.endswith("stream"):
        return await client.stream(model=model, background=background)
    kept = await client.whole(model=model, background=background)
    if background and kept.id is not None:
        await client.ended(kept.id)
    return kept


def _has_seen(client: Persistent, moment: int) -> bool:
    return client.seen >= moment


async def _none_left(stack: Stack, model: str) -> bool:
    return await stack.sql(_UNFINISHED, model) == [(0,)]


async def _agrees(wire: Wire, kept: Kept, background: bool) -> None:
    """What the client was told is what is stored; a background run came to its end."""
    assert kept.id is not None
    stored = (await wire.get(kept.id)).json
    if kept.frames:
        assert kept.ending["response"] == stored
        # A client that was reading when its worker died may have seen a little that is in no log, so
        # that its own copy does not add up. The log does, for whoever reads it from the start.
        whole = await wire.ask("GET", f"/v1/responses/{kept.id}?stream=true")
        assert check_stream(bytes(whole.raw), taken_over=True)[-1]["response"] == stored
    if background:
        assert stored["status"] == "completed"
        assert stored["output"][-1]["content"][0]["text"] == WHOLE
    assert stored["status"] in ("completed", "failed")
    if stored["status"] == "failed":
        assert stored["error"]["code"] == "server_error"


@pytest.mark.parametrize("count", [500])
async def test_500_background_responses_survive_a_kill(
    rugged: Stack, rugged_wire: Wire, count: int
) -> None:
    """P4: each runs to its end, each has exactly one terminal state and one answer."""
    model = rugged.plays(Pace(replies.stream(text("Hel", "lo")), 0.005))
    victim = rugged.worker(0)
    gate = asyncio.Semaphore(40)

    async def queue() -> str:
        async with gate:
            seen = await rugged_wire.create(
                model=model, background=True, stream=False, timeout=PATIENCE
            )
            # Envoy may have sent a request to the worker that was dying.
            while seen.status == 503:
                seen = await rugged_wire.create(
                    model=model, background=True, stream=False, timeout=PATIENCE
                )
            assert seen.status == 200, bytes(seen.raw)
            return str(seen.json["id"])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(queue()) for _ in range(count)]
        await eventually(lambda: len(rugged.asked(model)) >= count // 4, timeout=PATIENCE)
        os.kill(victim, signal.SIGKILL)
    ids = [task.result() for task in tasks]
    await eventually(lambda: _none_left(rugged, model), timeout=PATIENCE)

    assert len(set(ids)) == count
    told = await rugged.sql(
        "SELECT status, count(*) FROM responses WHERE model = %s AND id = ANY(%s) GROUP BY 1",
        model, ids,
    )  # fmt: skip
    assert told == [("completed", count)]
    outputs = await rugged.sql(
        "SELECT count(*), count(DISTINCT i.response_id) FROM items i"
        " WHERE i.side = 'output' AND i.response_id = ANY(%s)",
        ids,
    )
    assert outputs == [(count, count)]
    await rugged.replaced(0, victim)
