"""Stored responses by the SDK: retrieve, list, input items, delete, cancel."""

from __future__ import annotations

import openai
import pytest

from tests.support.fix_stack import ALL_WAYS
from tests.support.replies import say, text
from tests.support.stack import Stack
from tests.support.wire import Wire

pytestmark = ALL_WAYS


async def test_input_items_are_paged_by_the_sdk(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """H2: newest first by default; the SDK's iterator walks all pages in either order."""
    model = stack.plays(say(text("ok")))
    words = [f"word {number}" for number in range(7)]
    made = await client.responses.create(
        model=model, input=[{"role": "user", "content": word} for word in words]
    )

    def said(item: object) -> str:
        return str(item.content[0].text)  # type: ignore[attr-defined]

    page = await client.responses.input_items.list(made.id, limit=3)
    newest = [said(item) async for item in client.responses.input_items.list(made.id, limit=3)]
    oldest = [
        said(item)
        async for item in client.responses.input_items.list(made.id, limit=2, order="asc")
    ]

    assert [said(item) for item in page.data] == words[:3:-1]
    assert page.has_more
    assert newest == words[::-1]
    assert oldest == words


async def test_input_items_are_the_responses_own(stack: Stack, client: openai.AsyncOpenAI) -> None:
    """Without the history: each turn lists what came with it, as it came."""
    model = stack.plays(say(text("ok")))
    one = await client.responses.create(model=model, input="first")
    two = await client.responses.create(model=model, input="second", previous_response_id=one.id)

    items = [item async for item in client.responses.input_items.list(two.id)]

    assert [item.type for item in items] == ["message"]
    assert items[0].to_dict()["content"] == [{"type": "input_text", "text": "second"}]
    assert items[0].id is not None


async def test_responses_are_listed_by_model_order_and_cursor(stack: Stack, wire: Wire) -> None:
    """H2: has_more, first_id, last_id, `after`, `order`, `limit`; an extension of ours."""
    model = stack.plays(say(text("ok")))
    made = [(await wire.create(model=model, stream=False)).json for _ in range(5)]
    ids = [response["id"] for response in made]

    async def page(**query: str) -> tuple[list[str], bool]:
        seen = await wire.ask("GET", "/v1/responses", params={"model": model, **query})
        found = [response["id"] for response in seen.json["data"]]
        assert seen.json["object"] == "list"
        assert (seen.json["first_id"], seen.json["last_id"]) == (
            (found[0], found[-1]) if found else (None, None)
        )
        return found, seen.json["has_more"]

    assert await page() == (ids[::-1], False)
    assert await page(order="asc", limit="2") == (ids[:2], True)
    assert await page(order="asc", limit="2", after=ids[1]) == (ids[2:4], True)
    assert await page(order="asc", limit="2", after=ids[3]) == (ids[4:], False)
    assert await page(limit="5") == (ids[::-1], False)
    assert await page(after=ids[0]) == ([], False)
    everything = await wire.ask("GET", "/v1/responses", params={"model": model})
    assert everything.json["data"] == made[::-1]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=resp_unknown", "after"),
        ("colour=red", "colour"),
    ],
)
async def test_wrong_list_parameters_are_named(wire: Wire, query: str, param: str) -> None:
    """H2: 400 with `param`, never ignored."""
    seen = await wire.ask("GET", f"/v1/responses?{query}")

    assert seen.status == 400
    assert seen.error["param"] == param


async def test_a_deleted_response_is_gone_and_its_descendants_are_not(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """P7: its content is removed from the store; what continued it goes on working, without it."""
    model = stack.plays(say(text("ok")))
    one = await client.responses.create(model=model, input="to be forgotten")
    two = await client.responses.create(model=model, input="kept", previous_response_id=one.id)

    await client.responses.delete(one.id)

    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(one.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete(one.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        await client.responses.create(model=model, input="x", previous_response_id=one.id)
    assert not await stack.sql(
        "SELECT 1 FROM items WHERE convert_from(item, 'UTF8') ~ 'to be forgotten'"
    )
    assert (await client.responses.retrieve(two.id)).id == two.id
    after = stack.plays(say(text("ok")))
    await client.responses.create(model=after, input="go on", previous_response_id=two.id)
    sent = (await stack.asks(after)).json["input"]
    assert [item["content"] for item in sent] == ["kept", "ok", "go on"]


async def test_a_foreground_response_cannot_be_cancelled_yet(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """H1: what cannot be done is a 400 that says so, and a 404 for what is not there."""
    made = await client.responses.create(model=stack.plays(say(text("ok"))), input="hi")

    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.cancel(made.id)
    assert "background" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        await client.responses.cancel("resp_unknown")


@pytest.mark.parametrize(
    "wanted", ["resp_unknown", "resp_" + "0" * 32, "x", "%25", "ä", "a" * 5000]
)
async def test_ids_that_are_not_there_give_the_same_404(wire: Wire, wanted: str) -> None:
    """X1: on each route, whatever the id looks like."""
    answers = [
        await wire.ask("GET", f"/v1/responses/{wanted}"),
        await wire.ask("DELETE", f"/v1/responses/{wanted}"),
        await wire.ask("POST", f"/v1/responses/{wanted}/cancel"),
        await wire.ask("GET", f"/v1/responses/{wanted}/input_items"),
    ]

    assert [answer.status for answer in answers] == [404] * 4
    assert len({bytes(answer.raw) for answer in answers}) == 1
    assert answers[0].error["code"] == "not_found"
