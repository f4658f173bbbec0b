"""Searches whose worker dies: what was found is kept, nothing is searched for twice (P4, T2, T8)."""

from __future__ import annotations

import json

import pytest

from engine.ports import EventBatch
from engine.response.effects import Effect, RunTools, Send
from engine.response.inputs import (
    ArgumentsDelta,
    Cited,
    Input,
    ItemStarted,
    ModelAnswered,
    TextDelta,
    TurnEnded,
)
from tests.support import replies
from tests.support.dead_worker import GONE
from tests.support.engine_rig import CALLER, NOW, Rig, final, small
from tests.support.fake_model import FakeModel, frames_of
from tests.support.replies import text
from tests.support.stream_rules import check_stream
from tests.support.word_search import WordSearch
from tests.unit.engine.test_file_search import RESULTS, SEAT, TOOL, files

CITES = frames_of(replies.stream(text("Belt【1】.")))
CALLS: list[Input] = [
    ItemStarted("message"),
    TextDelta("I look"),
    ItemStarted("function_call", "file_search"),
    ArgumentsDelta('{"queries": ["seat"]}'),
    ItemStarted("function_call", "file_search"),
    ArgumentsDelta('{"queries": ["helmet"]}'),
]


async def leave_behind_a_search(
    rig: Rig, *, include: list[str], background: bool = True, cites: bool = False
) -> str:
    """Leave a response of whose two searches one has ended; or, that `cites`, one behind them."""
    fields = {"tools": [TOOL], "include": include, "background": background, "stream": True}
    run = await rig.admit(json.dumps({"model": "m", "input": "hi", **fields}).encode(), CALLER)
    assert run.new is not None
    lease = await rig.store.accept(run.new)
    if background:
        [claim] = await rig.store.claim(rig.live.worker, rig.limits.lease, queued=1, expired=0)
        lease = claim.lease
    machine, first = run.machine, run.machine.sequence
    listed = await rig.live.means.tools.list(run.providers)
    frames = b""
    effects: list[Effect] = []

    def feed(*inputs: Input) -> None:
        nonlocal frames, effects
        for received in inputs:
            effects = machine.receive(received)
            frames += b"".join(e.frames for e in effects if isinstance(e, Send))

    feed(run.first, listed, ModelAnswered(), *CALLS)
    if cites:
        feed(ItemStarted("message"), TextDelta("so"), Cited("【1】", "file-law", "law.pdf"))
    else:
        feed(TurnEnded(NOW, None))
        asked = next(effect for effect in effects if isinstance(effect, RunTools))

        async def ended(outcome: Input) -> None:
            feed(outcome)

        await rig.live.means.tools.run(run.providers, asked.calls[:1], ended, run.account)
    await rig.store.append(lease, EventBatch(first, machine.sequence - 1, frames))
    return run.id


def dead_rig(stored: WordSearch) -> Rig:
    return Rig(FakeModel(), limits=small(lease=GONE), worker="replica/1#1", files=stored)


@pytest.mark.parametrize("include", [[], RESULTS])
async def test_a_finished_search_is_not_made_again(include: list[str]) -> None:
    """P4, T2, T8: the model is told what the dead worker found, and may cite it."""
    stored = files()
    dead = dead_rig(stored)
    wanted = await leave_behind_a_search(dead, include=include)
    assert len(stored.asked) == 1
    rig = Rig(FakeModel(*CITES), store=dead.store, limits=small(lease=0.04), files=stored)
    rig.recovery.start()
    rig.background.start()
    response = await rig.becomes(wanted, "completed", "failed", "incomplete")
    await rig.recovery.stop()
    await rig.background.stop()
    await rig.settled()

    assert response["status"] == "completed", response["error"]
    assert len(stored.asked) == 1
    searches = [i for i in response["output"] if i["type"] == "file_search_call"]
    assert [i["status"] for i in searches] == ["completed", "incomplete"]
    assert [i["queries"] for i in searches] == [["seat"], ["helmet"]]
    assert (searches[0]["results"] is not None) == bool(include)
    sent = json.loads(rig.model.bodies[0])["input"]
    assert [i.get("type") for i in sent[2:]] == ["function_call", "function_call_output"]
    assert f"【1】 law.pdf (file-law)\n{SEAT.text}" in sent[-1]["output"]
    [part] = response["output"][-1]["content"]
    assert (part["text"], len(part["annotations"])) == ("Belt.", 1)
    assert final(check_stream(await shown(rig, wanted), taken_over=True)) == response


@pytest.mark.parametrize("cites", [False, True])
async def test_a_stream_in_the_foreground_with_searches_fails_in_order(cites: bool) -> None:
    """P4, R1: its items stay and are closed; nothing is searched for again."""
    stored = files()
    dead = dead_rig(stored)
    wanted = await leave_behind_a_search(dead, include=[], background=False, cites=cites)
    searched = len(stored.asked)
    rig = Rig(FakeModel(*CITES), store=dead.store, limits=small(lease=0.04), files=stored)
    rig.recovery.start()
    response = await rig.becomes(wanted, "completed", "failed", "incomplete")
    await rig.recovery.stop()
    await rig.settled()

    assert response["status"] == "failed"
    statuses = [item["status"] for item in response["output"]]
    ended = ["incomplete", "incomplete", "incomplete"] if cites else ["completed", "incomplete"]
    assert statuses == ["completed", *ended]
    assert (rig.model.bodies, len(stored.asked)) == ([], searched)
    assert final(check_stream(await shown(rig, wanted), taken_over=True)) == response


async def test_a_background_response_searches() -> None:
    """T8: the same without a client; a store that is gone by then is a failed search."""
    stored = files()
    turns = [
        list(frames_of(replies.stream(replies.call("file_search", '{"queries": ["seat"]}'))))
        for _ in range(2)
    ]
    rig = Rig(FakeModel(*CITES, turns=[turns[0], CITES, turns[1]]), files=stored)
    rig.background.start()
    first = (await rig.create(background=True, tools=[TOOL])).json
    assert (await rig.becomes(first["id"], "completed"))["output"][0]["status"] == "completed"
    await rig.background.stop()
    second = (await rig.create(background=True, tools=[TOOL])).json
    stored.remove("vs_1")
    rig.background = type(rig.background)(rig.live, rig.takeover, most=2)
    rig.background.start()
    response = await rig.becomes(second["id"], "completed", "failed")
    await rig.background.stop()
    assert (response["status"], response["output"][0]["status"]) == ("completed", "failed")


async def shown(rig: Rig, wanted: str) -> bytes:
    """The stream as its readers see it."""
    raw = await rig.log(wanted)
    return b"\n".join(line for line in raw.split(b"\n") if not line.startswith(b": held "))
