"""`engine.observer`: who looks at a run that goes on, or does not."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from engine.observer import Observer, Seen
from engine.response.inputs import TextDelta
from engine.response.phase import Phase
from tests.support import replies
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import text

WORDS = ["SECRET"] * 50
FRAMES = frames_of(replies.stream(text(*WORDS)))


async def test_a_stuck_run_says_what_it_waits_for_and_then_each_step() -> None:
    """Kinds, sizes and phases to its end; nothing that was said (P5)."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*FRAMES[:5], Hang(gate), *FRAMES[5:]))
    reply = FakeReply()
    running = rig.start(reply, stream=True, input="SECRET")
    await reply.until(b"output_text.delta")
    loop = rig.live.running(reply.raw.partition(b'"id":"')[2].partition(b'"')[0].decode())
    assert loop is not None

    seen: list[Seen] = []
    async with asyncio.timeout(5), aclosing(Observer(loop).lines()) as lines:
        async for some in lines:
            seen += some
            gate.set()
    await running

    whole, doing, *steps, end = seen
    assert (whole["phase"], whole["turns"], whole["client_gone"]) == ("streaming", 1, False)
    assert doing["doing"] == "chat m"
    assert [s["input"] for s in steps if "effects" in s] == ["TurnEnded", "Saved"]
    assert sum(int(s.get("count", 1)) for s in steps if s["input"] == "TextDelta") == 49
    # What follows each other alike is one line.
    assert len(steps) < 20
    assert str(steps[-1]["effects"]).endswith("Close completed")
    assert (end["ended"], end["status"]) == (True, "completed")
    assert "SECRET" not in str(seen)


async def test_who_does_not_take_what_there_is_to_see_holds_nothing_up() -> None:
    """X5: the lines that wait are bounded, the rest is counted."""
    gate = asyncio.Event()
    alternating = [part for i in range(700) for part in (text(f"{i}"), replies.reasoning("x"))]
    frames = frames_of(replies.stream(*alternating))
    rig = Rig(FakeModel(Hang(gate), *frames))
    running = rig.start(FakeReply(), stream=True)
    await rig.until(lambda: len(rig.live) and rig.model.called.is_set())
    [loop] = [rig.live.running(r.id) for r in await rig.stored()]
    assert loop is not None

    async with asyncio.timeout(20), aclosing(Observer(loop).lines()) as lines:
        await anext(lines)
        gate.set()
        await running
        rest = [line async for some in lines for line in some]

    assert 0 < len(rest) <= 1100
    assert any("dropped_lines" in line for line in rest)
    assert rest[-1].get("ended") or rest[-2].get("ended")


async def test_a_run_that_is_over_before_the_first_look_is_seen_to_end() -> None:
    """Whoever came in time is not left waiting, and what cannot be shown ends no run."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*FRAMES[:5], Hang(gate), *FRAMES[5:]))
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b"output_text.delta")
    [loop] = [rig.live.running(r.id) for r in await rig.stored()]
    assert loop is not None

    observer = Observer(loop)
    gate.set()
    await running
    await rig.settled()
    async with asyncio.timeout(5), aclosing(observer.lines()) as lines:
        seen = [line async for some in lines for line in some]
    assert (seen[-1]["ended"], seen[-1]["status"]) == (True, "completed")


async def test_a_piece_without_text_is_shown_like_any_other() -> None:
    """The first of several alike may be empty; nothing of the run depends on who looks."""
    rig = Rig(FakeModel(Hang(gate := asyncio.Event()), *FRAMES))
    running = rig.start(FakeReply(), stream=True)
    await rig.until(lambda: len(rig.live) and rig.model.called.is_set())
    [loop] = [rig.live.running(r.id) for r in await rig.stored()]
    assert loop is not None
    async with asyncio.timeout(5), aclosing(Observer(loop).lines()) as lines:
        await anext(lines)
        [step] = loop.run_of.machine.observers
        for piece in ("", "x", "yz"):
            step(TextDelta(piece), Phase.STREAMING, [])
        [seen] = await anext(lines)
        gate.set()
        await running
    assert (seen["count"], seen["size"]) == (3, 3)
