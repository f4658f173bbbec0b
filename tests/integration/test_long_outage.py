"""Postgres stopped for twenty seconds under load: no false success, nothing lost, no restart needed."""

from __future__ import annotations

import asyncio
import time

from tests.support import replies
from tests.support.replies import say, text
from tests.support.scripts import Hold
from tests.support.stack import KillablePostgres, Stack, eventually
from tests.support.wire import Reading, Seen, Wire

OUTAGE = 20.0
ANSWER = replies.stream(text("Hel", "lo"))


async def test_twenty_seconds_without_postgres_under_load(
    rugged: Stack, rugged_wire: Wire, own_postgres: KillablePostgres
) -> None:
    """P1, P2, R13: new work is refused at once, running streams wait and are then kept."""
    gate = asyncio.Event()
    patient, quick = rugged.plays(ANSWER[:5], Hold(gate), ANSWER[5:]), rugged.plays(say(text("ok")))
    pids = [rugged.worker(index) for index in range(2)]
    answers: list[Seen] = []
    slowest = 0.0
    over = asyncio.Event()

    async def load(stream: bool) -> None:
        nonlocal slowest
        while not over.is_set():
            began = time.monotonic()
            seen = await rugged_wire.create(model=quick, stream=stream, timeout=90)
            answers.append(seen)
            if seen.status == 503:
                slowest = max(slowest, time.monotonic() - began)

    async def new_work_is_refused() -> bool:
        answers.append(await rugged_wire.create(model=quick, stream=False, timeout=90))
        return answers[-1].status == 503

    async def run() -> Reading:
        async with rugged_wire.open(model=patient) as reading:
            await reading.until("response.output_text.delta")
            waiting.append(reading)
            await reading.rest(120)
            return reading

    waiting: list[Reading] = []
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run()) for _ in range(8)]
        await eventually(lambda: len(waiting) == 8)
        loads = [group.create_task(load(number % 2 == 0)) for number in range(6)]
        await eventually(lambda: len(answers) >= 60)
        await own_postgres.kill()
        stopped = time.monotonic()
        # The load may all be waiting for its last commit.
        await eventually(new_work_is_refused)
        gate.set()
        await eventually(lambda: time.monotonic() - stopped >= OUTAGE, timeout=2 * OUTAGE)
        refused = sum(seen.status == 503 for seen in answers)
        await own_postgres.start()
        back = len(answers)
        await eventually(
            lambda: sum(seen.status == 200 for seen in answers[back:]) >= 60, timeout=60
        )
        over.set()
        del loads

    assert refused > 0
    assert slowest < rugged.settings.postgres.timeout_seconds + 5
    for seen in answers:
        assert seen.status in (200, 503)
        if seen.status == 503:
            assert seen.error["code"] == "storage_unavailable"
            assert seen.headers["retry-after"]
    acknowledged = {seen.json["id"] for seen in answers if _whole(seen)} | {
        seen.response["id"]
        for seen in answers
        if seen.status == 200 and not _whole(seen) and seen.ending["type"] == "response.completed"
    }
    for task in running:
        assert task.result().ending["type"] == "response.completed"
        assert task.result().comments > 0
        acknowledged.add(task.result().response["id"])
    rows = await rugged.sql("SELECT id FROM responses WHERE status = 'completed'")
    assert acknowledged <= {row[0] for row in rows}
    assert [rugged.worker(index) for index in range(2)] == pids


def _whole(seen: Seen) -> bool:
    return seen.status == 200 and seen.headers["content-type"] == "application/json"
