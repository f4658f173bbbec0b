"""Envoy's model listener alone: which server a turn reaches, and how often one is asked (promise 5)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from io import BytesIO

import aiohttp
import pytest

from extproc.settings import Settings
from tests.support import replies
from tests.support.bare_envoy import TURN, Answer, ask, envoy
from tests.support.replies import text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Body, Cut, Script, Start
from tests.support.stack import short_directory

JSON = {"content-type": "application/json"}
AFFINITY = "x-holdfast-affinity"
ONCE = {"x_holdfast_once": "1"}
BODY = {"model": "holdfast-demo", "input": "Hello"}


async def turn(settings: Settings, **headers: str) -> Answer:
    """Ask the model as the sidecar does."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await ask("POST", TURN, settings.model.socket, json=BODY, headers=named)


@pytest.fixture
async def pair() -> AsyncIterator[list[ScriptedModel]]:
    """Two model servers."""
    async with AsyncExitStack() as running:
        yield [await running.enter_async_context(ScriptedModel()) for _ in range(2)]


def urls(pair: list[ScriptedModel]) -> str:
    return ",".join(model.url for model in pair)


async def test_a_conversation_is_kept_together_and_conversations_are_spread(
    pair: list[ScriptedModel],
) -> None:
    """Promise 5: one value of the header is one server, and two servers share many values."""
    with short_directory() as directory:
        async with envoy(directory, urls(pair)) as (_, settings):
            for _ in range(4):
                for conversation in range(16):
                    answer = await turn(settings, x_holdfast_affinity=f"c{conversation}")
                    assert answer.status == 200

    seen = [{request.headers[AFFINITY] for request in model.requests} for model in pair]
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]
    for model in pair:
        assert {request.headers["host"] for request in model.requests} == {
            f"127.0.0.1:{model.port}"
        }


async def test_conversations_of_a_server_that_is_gone_move_and_others_stay(
    pair: list[ScriptedModel],
) -> None:
    """Promise 5: no turn is lost, and those of the other server notice nothing."""
    conversations = [f"c{number}" for number in range(12)]
    with short_directory() as directory:
        async with envoy(directory, urls(pair)) as (_, settings):
            for conversation in conversations:
                await turn(settings, x_holdfast_affinity=conversation)
            gone, left = pair
            before = len(left.requests)
            await gone.stop()
            for conversation in conversations * 2:
                answer = await turn(settings, x_holdfast_affinity=conversation)
                assert answer.status == 200

    assert before < len(conversations)
    assert len(left.requests) == before + 2 * len(conversations)


async def test_a_server_that_is_the_only_one_is_never_left_out() -> None:
    """Promise 5: whatever was tried while it was away, it is asked as soon as it is back."""
    with short_directory() as directory:
        socket = directory / "model.sock"
        async with envoy(directory, f"unix:{socket}") as (_, settings):
            away = [(await turn(settings)).status for _ in range(6)]
            async with ScriptedModel(unix_socket=socket):
                back = (await turn(settings)).status

    assert (away, back) == ([503] * 6, 200)


async def test_a_turn_is_tried_again_when_the_server_is_busy(model: ScriptedModel) -> None:
    """Promise 5: also with a body that Envoy would not keep by default."""
    model.script(Script(replies.unavailable()))
    body = json.dumps({"model": "holdfast-demo", "input": "x" * 3_000_000}).encode()
    with short_directory() as directory:
        async with envoy(directory, model.url) as (_, settings):
            answer = await ask(
                "POST", TURN, settings.model.socket, data=BytesIO(body), headers=JSON
            )

    assert answer.status == 200
    first, second = model.requests
    assert first.body == second.body == body


async def test_who_is_busy_is_not_asked_again_where_another_is_not(
    pair: list[ScriptedModel],
) -> None:
    """Promise 5: a turn is tried again at another server."""
    for model in pair:
        model.always = Script(replies.unavailable())
    pair[0].always = None
    with short_directory() as directory:
        async with envoy(directory, urls(pair)) as (_, settings):
            answers = [await turn(settings, x_holdfast_affinity=f"c{n}") for n in range(8)]

    assert [answer.status for answer in answers] == [200] * 8
    assert len(pair[0].requests) == 8


def away(retry_after: str | None) -> Script:
    """A 503 that says when to come back."""
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = retry_after
    return Script(Body(lambda _: b"{}", 503, headers))


BROKEN = Script(Start(), replies.stream(text("Hel"))[:2], Cut())


@pytest.mark.parametrize(
    ("script", "asked", "asked_once"),
    [
        (away(None), 3, 1),
        (away("0"), 3, 1),
        (away("30"), 1, 1),
        (away("Fri, 31 Dec 2100 23:59:59 GMT"), 1, 1),
        (Script(Cut()), 3, 1),
        (Script(Cut(reset=True)), 3, 1),
        (Script(replies.rate_limited()), 1, 1),
        (Script(Body(lambda _: b"{}", 500)), 1, 1),
        (BROKEN, 1, 1),
    ],
    ids=["503", "at-once", "later", "date", "fin", "rst", "429", "500", "200-that-breaks"],
)
async def test_each_fault_is_asked_for_again_as_often_as_its_rule_says(
    model: ScriptedModel, script: Script, asked: int, asked_once: int
) -> None:
    """R15, R16: by Envoy where no byte of an answer came; never a turn that says that it is asked once."""
    model.always = script
    with short_directory() as directory:
        async with envoy(directory, model.url) as (_, settings):
            with suppress(aiohttp.ClientPayloadError):
                await turn(settings)
            first = len(model.requests)
            with suppress(aiohttp.ClientPayloadError):
                await turn(settings, **ONCE)

    assert (first, len(model.requests) - first) == (asked, asked_once)
    assert not any("x-holdfast-once" in request.headers for request in model.requests)


async def test_what_is_asked_once_is_still_brought_to_a_server(pair: list[ScriptedModel]) -> None:
    """Promise 5: where one cannot be connected to, none has seen it."""
    with short_directory() as directory:
        async with envoy(directory, urls(pair)) as (_, settings):
            await pair[0].stop()
            answers = [await turn(settings, x_holdfast_affinity=f"c{n}", **ONCE) for n in range(8)]

    assert [answer.status for answer in answers] == [200] * 8
    assert len(pair[1].requests) == 8


async def test_what_envoy_judges_by_is_not_shown(model: ScriptedModel) -> None:
    """R15: neither to the sidecar nor to clients of routes that are not ours."""
    with short_directory() as directory:
        async with envoy(directory, model.url) as (url, settings):
            answers = [await turn(settings), await ask("GET", f"{url}/v1/models")]

    for answer in answers:
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("x-holdfast")]


async def test_a_server_that_says_that_it_is_ill_gets_no_turns(pair: list[ScriptedModel]) -> None:
    """Promise 5: where the settings name its health."""
    ill, well = pair
    ill.health_status = 503
    with short_directory() as directory:
        async with envoy(directory, urls(pair), health_path="/health") as (_, settings):
            answers = [await turn(settings, x_holdfast_affinity=f"c{n}") for n in range(8)]

    assert [answer.status for answer in answers] == [200] * 8
    assert (len(ill.requests), len(well.requests)) == (0, 8)
    assert {probe.path for probe in ill.probes} == {"/health"}
