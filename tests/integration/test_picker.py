"""An endpoint picker on the model listener: it chooses the server of each turn (promise 5)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.bare_envoy import TURN, ask, envoy
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.picker import DESTINATION, Picker
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import running_stack, short_directory
from tests.support.wire import Wire

BODY = {"model": "holdfast-demo", "input": "Hello"}


@pytest.fixture
async def pair() -> AsyncIterator[list[ScriptedModel]]:
    """Two model servers."""
    async with AsyncExitStack() as running:
        yield [await running.enter_async_context(ScriptedModel()) for _ in range(2)]


def urls(pair: list[ScriptedModel]) -> str:
    return ",".join(model.url for model in pair)


def address(model: ScriptedModel) -> str:
    return f"127.0.0.1:{model.port}"


async def test_a_turn_goes_where_the_picker_says(pair: list[ScriptedModel]) -> None:
    """Promise 5: whatever its conversation; the picker sees the body and leaves it as it is."""
    large = {**BODY, "metadata": {"n": "x" * 300_000}}
    async with Picker(lambda _headers, _body: address(pair[1])) as picker:
        with short_directory() as directory:
            async with envoy(directory, urls(pair), picker_url=picker.url) as (_, settings):
                for number in range(6):
                    headers = {"x-holdfast-affinity": f"c{number}"}
                    answer = await ask(
                        "POST", TURN, settings.model.socket, json=large, headers=headers
                    )
                    assert answer.status == 200

    assert (len(pair[0].requests), len(pair[1].requests)) == (0, 6)
    assert {request.body for request in pair[1].requests} == {json.dumps(large).encode()}
    assert {picked.body for picked in picker.picked} == {json.dumps(large).encode()}
    assert [picked.headers["x-holdfast-affinity"] for picked in picker.picked] == [
        f"c{number}" for number in range(6)
    ]


async def test_where_the_picked_server_is_gone_the_conversation_says(
    pair: list[ScriptedModel],
) -> None:
    """Promise 5: a picker that names a server that Envoy does not know, or that cannot be reached."""
    nowhere = iter(["10.9.8.7:1", address(pair[0])])
    async with Picker(lambda _headers, _body: next(nowhere)) as picker:
        with short_directory() as directory:
            async with envoy(directory, urls(pair), picker_url=picker.url) as (_, settings):
                await pair[0].stop()
                for _ in range(2):
                    answer = await ask("POST", TURN, settings.model.socket, json=BODY)
                    assert answer.status == 200

    assert len(pair[1].requests) == 2


async def test_without_the_picker_there_is_an_error_in_the_shape_of_the_api(
    pair: list[ScriptedModel],
) -> None:
    """R15: nothing is sent to a server that nobody has picked."""
    with short_directory() as directory:
        nobody = f"unix:{directory}/picker.sock"
        async with envoy(directory, urls(pair), picker_url=nobody) as (_, settings):
            answer = await ask("POST", TURN, settings.model.socket, json=BODY)

    assert answer.status == 503
    assert answer.error["code"] == "model_unavailable"
    assert [model.requests for model in pair] == [[], []]


async def test_what_passes_through_is_picked_and_no_client_picks_itself(
    pair: list[ScriptedModel],
) -> None:
    """X6: the header is the picker's, on every route; what has no body goes anywhere."""
    own = {DESTINATION: address(pair[0])}
    async with Picker(lambda _headers, _body: address(pair[1])) as picker:
        with short_directory() as directory:
            async with envoy(directory, urls(pair), picker_url=picker.url) as (url, _):
                for _ in range(4):
                    await ask("POST", f"{url}/v1/chat/completions", json=BODY, headers=own)
                answer = await ask("GET", f"{url}/v1/models", headers=own)

    assert answer.status == 200
    assert (len(pair[0].requests), len(pair[1].requests)) == (0, 4)
    assert not any(DESTINATION in picked.headers for picked in picker.picked)


async def test_the_picker_sees_turns_and_no_request_of_a_client(
    pair: list[ScriptedModel], postgres_server: EmbeddedPostgres
) -> None:
    """Promise 5: off on owned routes, where it would wait for ever for a request behind our answer."""

    def by_affinity(headers: Mapping[str, str], _body: bytes) -> str:
        return address(pair[int(headers["x-holdfast-affinity"], 16) % 2])

    async with (
        Picker(by_affinity) as picker,
        running_stack(
            pair[0],
            await create_database(postgres_server),
            model={"url": urls(pair)},
            routing={"picker_url": picker.url},
        ) as stack,
        open_session(stack.url) as session,
    ):
        wire = Wire(session)
        previous = None
        for number in range(4):
            seen = await wire.stream(
                "holdfast-demo", input=str(number), previous_response_id=previous
            )
            previous = seen.response["id"]
        await wire.get(str(previous))

    assert picker.firsts == ["request_headers"] * 4
    assert {picked.headers[":path"] for picked in picker.picked} == {"/v1/responses"}
    assert sorted(len(model.requests) for model in pair) == [0, 4]
