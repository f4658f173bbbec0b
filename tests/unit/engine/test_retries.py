"""What is asked for again of a model: before the first delta, and in the background behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.api.ownership import ToolPolicy
from engine.errors import UpstreamFailed
from engine.retries import ONCE, RetryBudget
from tests.support import replies
from tests.support.engine_rig import CALLER, SOON, Rig, final, small
from tests.support.fake_model import Break, FakeModel, Hang, Head, Step, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import call, text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
CALL = frames_of(replies.stream(call("f", "{}"), text("then")))
ERROR = frames_of(replies.error_frame("Out of memory."))
BAD_REQUEST = frames_of(replies.error_frame("No such thing.", code=400))
TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
OK = Head(200, "text/event-stream")
QUIET = HELLO[:2]
"""What is sent before the first delta."""

NOTHING_YET: dict[str, list[Step]] = {
    "breaks at once": [OK, Break()],
    "breaks behind its lifecycle events": [*QUIET, Break()],
    "ends": [*QUIET],
    "ends at once": [OK],
    "error": [*ERROR],
    "error behind its lifecycle events": [*QUIET, *ERROR],
    "error in the same chunk": [b"".join([*QUIET, *ERROR])],
}


def asked_once(model: FakeModel) -> list[bool]:
    """Return of each call whether Envoy is to bring it to one server only."""
    return [headers.items() >= ONCE.items() for headers in model.headers]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", NOTHING_YET)
async def test_a_turn_that_failed_before_its_first_delta_is_asked_for_again(
    name: str, stream: bool
) -> None:
    """R1, R4: by one request more, the same one; its client never learns of it."""
    rig = Rig(FakeModel(*HELLO, turns=[NOTHING_YET[name]]))

    reply = await rig.create(stream=stream)

    response = final(check_stream(reply.raw)) if stream else reply.json
    assert response["status"] == "completed"
    assert asked_once(rig.model) == [False, True]
    assert rig.model.bodies[0] == rig.model.bodies[1]


@pytest.mark.parametrize("name", NOTHING_YET)
async def test_a_turn_that_fails_each_time_is_asked_for_twice(name: str) -> None:
    """R1: `response.failed`, with what the model said last."""
    rig = Rig(FakeModel(*NOTHING_YET[name]))

    response = final(await rig.stream())

    assert response["status"] == "failed"
    assert len(rig.model.bodies) == 2


@pytest.mark.parametrize(
    "steps",
    [
        [*HELLO[:-5], Break()],
        [*HELLO[:-5], *ERROR],
        [b"".join([*HELLO[:-5], *ERROR])],
        [*BAD_REQUEST],
        [Head(503), b"{}"],
        [Head(400), b"{}"],
        [Head(200), b"no response"],
        [*QUIET, Break(UpstreamFailed("silent"))],
    ],
    ids=["delta", "delta-error", "one-chunk", "4xx", "503", "400", "no-stream", "silence"],
)
async def test_what_was_answered_or_is_ours_is_not_asked_for_again(steps: list[Step]) -> None:
    """R1, R15: after a delta never; a status was Envoy's to judge; some failures would be the same again."""
    rig = Rig(FakeModel(*steps))

    await rig.create(stream=True)

    assert asked_once(rig.model) == [False]


async def test_text_that_is_held_back_is_a_beginning_too() -> None:
    """R8: what looks like the start of a call is not shown, and yet tokens were made."""
    held = frames_of(replies.stream(text('<tool_call>{"name": "f", ')))[:-3]
    rig = Rig(FakeModel(*held, Break()))

    await rig.create(stream=True, tools=TOOLS)

    assert len(rig.model.bodies) == 1


async def test_a_second_call_that_is_refused_is_the_end() -> None:
    """R16: the stream has begun, so it is told as events."""
    rig = Rig(FakeModel(Head(429, retry_after=1), b"{}", turns=[[OK, Break()]]))

    response = final(await rig.stream())

    assert response["error"]["message"] == "The model server refused the request (429)."
    assert len(rig.model.bodies) == 2


async def test_a_client_that_leaves_ends_the_second_call(caplog: pytest.LogCaptureFixture) -> None:
    """P3: what is asked for again is aborted like anything else; and the log counts it."""
    rig = Rig(FakeModel(Hang(asyncio.Event()), turns=[[OK, Break()]]))
    reply = FakeReply()
    asking = rig.start(reply, stream=True, store=False)
    await rig.until(lambda: len(rig.model.bodies) == 2)

    asking.cancel()

    async with asyncio.timeout(5):
        await rig.model.aborted.wait()
    assert "a turn is asked for again (1 so far): UpstreamFailed (502 " in caplog.text


async def test_the_budget_bounds_what_is_asked_for_again() -> None:
    """X5: a model server that is broken gets a few requests more, not twice as many."""
    rig = Rig(FakeModel(OK, Break()))

    for _ in range(30):
        await rig.create(stream=True, store=False)

    assert len(rig.model.bodies) == 40


def test_turns_that_go_well_earn_the_budget_back() -> None:
    """X5: five for one, and never more than ten."""
    budget = RetryBudget()
    failure = UpstreamFailed("")
    while budget.spend("r", failure):
        pass
    for _ in range(4):
        budget.earn()
    assert not budget.spend("r", failure)
    budget.earn()
    budget.earn()
    assert budget.spend("r", failure)
    assert budget.spent == 11


# -- in the background ------------------------------------------------------------------------------

AT_ONCE = small(SOON, retry_wait=0.0)
BROKEN: list[Step] = [*HELLO[:5], Break()]


async def in_background(rig: Rig, **fields: Any) -> Any:
    """Run a response in the background to its end and return it."""
    rig.background.start()
    try:
        created = (await rig.create(background=True, **fields)).json["id"]
        return await rig.becomes(created, "completed", "failed", "incomplete", "cancelled")
    finally:
        await rig.background.stop()


async def test_in_the_background_a_turn_that_broke_off_is_begun_anew() -> None:
    """P4: what was made stays shown, closed; the model is sent the same request and none of that."""
    rig = Rig(FakeModel(*HELLO, turns=[BROKEN]), limits=AT_ONCE)

    response = await in_background(rig)

    assert response["status"] == "completed"
    assert [item["status"] for item in response["output"]] == ["incomplete", "completed"]
    assert asked_once(rig.model) == [False, True]
    assert rig.model.bodies[0] == rig.model.bodies[1]
    await rig.create(previous_response_id=response["id"], input="And?")
    assert rig.model.bodies[-1].count(b'"assistant"') == 1


async def test_its_stream_is_one_stream() -> None:
    """R4, R5: numbers and items go on, and the log is what its reader saw."""
    rig = Rig(FakeModel(*HELLO, turns=[BROKEN]), limits=AT_ONCE)
    rig.background.start()

    reply = await rig.create(background=True, stream=True)

    await rig.background.stop()
    response = final(check_stream(reply.raw, taken_over=True))
    assert response["status"] == "completed"
    assert await rig.log(response["id"]) == reply.raw


async def test_in_the_background_attempts_are_counted() -> None:
    """R1: three in all, then it has failed; what each had made is shown."""
    rig = Rig(FakeModel(*BROKEN), limits=AT_ONCE)

    response = await in_background(rig)

    assert response["status"] == "failed"
    assert asked_once(rig.model) == [False, True, True]
    assert [item["status"] for item in response["output"]] == ["incomplete"] * 3


async def test_a_turn_that_is_begun_anew_has_no_retry_of_its_own() -> None:
    """R16: the two never multiply."""
    rig = Rig(FakeModel(OK, Break(), turns=[BROKEN]), limits=AT_ONCE)

    response = await in_background(rig)

    assert response["status"] == "failed"
    assert len(rig.model.bodies) == 2


async def test_a_call_that_is_finished_is_not_asked_for_twice() -> None:
    """T3: its client might run both."""
    rig = Rig(FakeModel(*CALL[:-4], Break()), limits=AT_ONCE)

    response = await in_background(rig, tools=TOOLS)

    assert response["status"] == "failed"
    assert len(rig.model.bodies) == 1


@pytest.mark.parametrize("steps", [[OK, Break()], BROKEN], ids=["before", "behind"])
async def test_a_turn_with_tools_of_the_model_servers_is_never_repeated(steps: list[Step]) -> None:
    """T3: neither by us nor by Envoy: a tool may have had its effect."""
    policy = ToolPolicy(upstream_types=frozenset({"web_search"}))
    rig = Rig(FakeModel(*steps), limits=AT_ONCE, policy=policy)

    response = await in_background(rig, tools=[{"type": "web_search"}])

    assert response["status"] == "failed"
    assert asked_once(rig.model) == [True]


async def test_a_pause_before_a_new_beginning_can_be_cancelled() -> None:
    """Promise 2: a cancel ends it at once, with what was made."""
    rig = Rig(FakeModel(*BROKEN), limits=small(SOON, retry_wait=3600.0))
    rig.background.start()
    try:
        created = (await rig.create(background=True)).json["id"]
        await rig.until(lambda: rig.live.means.retries.spent == 1)
        await rig.responses.cancel(CALLER, created, "")
        response = await rig.becomes(created, "cancelled")
    finally:
        await rig.background.stop()

    assert len(response["output"]) == 1
    assert len(rig.model.bodies) == 1
