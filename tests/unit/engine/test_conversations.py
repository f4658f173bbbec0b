"""`engine.conversations`: the operations on conversations and their items, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.answers import Answer
from engine.api.conversations import parse_add_items
from engine.errors import EngineError, InvalidRequest, NotFound
from engine.ids import ItemIds
from engine.intake import Caller
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel
from tests.support.input_shapes import CITATION, IMAGE, PART, SHAPES, TEXT, Item
from tests.support.kept_files import kept

STRANGER = Caller("stranger")
_RICH: dict[str, Item] = {
    "every part of a user": {"role": "user", "content": [TEXT, IMAGE, TEXT]},
    "every part of an assistant": {
        "role": "assistant",
        "id": "msg_1",
        "status": "incomplete",
        "phase": "commentary",
        "content": [
            {**PART, "annotations": [CITATION], "logprobs": [{"token": "y", "logprob": -0.5}]},
            {"type": "refusal", "refusal": "no"},
        ],
    },
    "an output of parts": {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": [TEXT, IMAGE],
    },
}


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _accepted() -> dict[str, Item]:
    """Return the shapes that can be an item here."""
    found = dict(_RICH)
    for shape in SHAPES:
        try:
            parse_add_items(body(items=[shape.item]), ItemIds("x"))
        except InvalidRequest:
            continue
        if "reference" not in shape.name:
            found[shape.name] = shape.item
    return found


def said(content: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": content}


ACCEPTED = _accepted()


async def created(rig: Rig, **fields: Any) -> Any:
    return json.loads((await rig.conversations.create(CALLER, body(**fields), "")).body)


async def listed(rig: Rig, name: str, query: str = "order=asc") -> Any:
    return json.loads((await rig.conversations.list_items(CALLER, name, query)).body)


async def refused(work: Awaitable[Answer]) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        await work
    return caught.value.param, caught.value.code


async def test_a_conversation_is_created_read_changed_and_deleted() -> None:
    """The object of the API; metadata are replaced."""
    rig = Rig(FakeModel())
    made = await created(rig, metadata={"topic": "a"})
    assert made["id"].startswith("conv_")
    assert (made["object"], made["metadata"]) == ("conversation", {"topic": "a"})
    name = made["id"]
    read = await rig.conversations.retrieve(CALLER, name, "")
    assert json.loads(read.body) == made
    changed = await rig.conversations.update(CALLER, name, body(metadata={"b": "c"}), "")
    assert json.loads(changed.body) == {**made, "metadata": {"b": "c"}}
    emptied = await rig.conversations.update(CALLER, name, body(metadata=None), "")
    assert json.loads(emptied.body)["metadata"] == {}
    gone = json.loads((await rig.conversations.delete(CALLER, name, "")).body)
    assert gone == {"id": name, "object": "conversation.deleted", "deleted": True}


@pytest.mark.parametrize("sent", [b"", b"{}", b'{"items":null,"metadata":null}', b'{"items":[]}'])
async def test_nothing_has_to_be_given(sent: bytes) -> None:
    """H1: null means absent."""
    rig = Rig(FakeModel())
    made = json.loads((await rig.conversations.create(CALLER, sent, "")).body)
    assert made["metadata"] == {}
    assert (await listed(rig, made["id"]))["data"] == []


async def test_conversations_are_listed_newest_first() -> None:
    """H2: an extension of ours; only one's own."""
    rig = Rig(FakeModel())
    ids = [(await created(rig))["id"] for _ in range(3)]
    await rig.conversations.create(STRANGER, b"", "")
    page = json.loads((await rig.conversations.list(CALLER, "limit=2")).body)
    assert [each["id"] for each in page["data"]] == ids[:0:-1]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    page = json.loads((await rig.conversations.list(CALLER, f"after={ids[1]}")).body)
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (ids[:1], False)


async def test_items_are_added_listed_read_and_deleted() -> None:
    """H2: pages in both orders; deleting shows the conversation."""
    rig = Rig(FakeModel())
    made = await created(rig, items=[said("one"), said("two")])
    name = made["id"]
    added = json.loads(
        (await rig.conversations.add_items(CALLER, name, body(items=[said("three")]), "")).body
    )
    page = await listed(rig, name)
    assert [item["content"][0]["text"] for item in page["data"]] == ["one", "two", "three"]
    assert page["data"][2:] == added["data"]
    assert (added["object"], added["has_more"]) == ("list", False)
    ids = [item["id"] for item in page["data"]]
    assert len(set(ids)) == 3
    newest = await listed(rig, name, "limit=2")
    assert ([item["id"] for item in newest["data"]], newest["has_more"]) == (ids[:0:-1], True)
    read = await rig.conversations.retrieve_item(CALLER, name, ids[1], "")
    assert json.loads(read.body) == page["data"][1]
    deleted = await rig.conversations.delete_item(CALLER, name, ids[1], "")
    assert json.loads(deleted.body) == made
    assert [item["id"] for item in (await listed(rig, name))["data"]] == [ids[0], ids[2]]


@pytest.mark.parametrize("name", sorted(ACCEPTED))
async def test_what_is_listed_can_be_added_again(name: str) -> None:
    """M8: items of every shape that we accept come back in a form that we accept, and stay as they are."""
    rig = Rig(FakeModel())
    await kept(rig, b"text", as_id="file-1")
    await kept(rig, b"GIF89a", as_id="f")
    first = await created(rig, items=[ACCEPTED[name]])
    page = await listed(rig, first["id"])
    second = await created(rig, items=page["data"])
    assert (await listed(rig, second["id"]))["data"] == page["data"]
    for key in ("content", "output", "phase", "arguments", "call_id"):
        given, shown = ACCEPTED[name].get(key), page["data"][0].get(key)
        assert shown == given or isinstance(shown, list), key


def test_content_of_every_kind_is_among_them() -> None:
    """M8: what the test above would pass without."""
    known = json.dumps(list(ACCEPTED.values()))
    for kind in (
        "input_text", "input_image", "input_file", "output_text", "refusal", "function_call", "reasoning",
        "function_call_output", "file_citation", "logprobs", "commentary",
    ):  # fmt: skip
        assert f'"{kind}"' in known, kind


async def test_a_reference_stands_for_a_stored_item() -> None:
    """M8: of one's own; another's is not found."""
    rig = Rig(FakeModel())
    made = await created(rig, items=[said("one")])
    [item] = (await listed(rig, made["id"]))["data"]
    copy = await created(rig, items=[{"type": "item_reference", "id": item["id"]}])
    assert (await listed(rig, copy["id"]))["data"] == [item]
    foreign = rig.conversations.create(STRANGER, body(items=[{"id": item["id"]}]), "")
    assert await refused(foreign) == ("items[0].id", "item_not_found")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"items": [said("x")] * 21}, "items", "invalid_value"),
        ({"items": "hi"}, "items", "invalid_type"),
        ({"items": [{"type": "message", "role": "user"}]}, "items[0].content", None),
        ({"items": [said("x"), {"type": "computer_call"}]}, "items[1].type", "unsupported_value"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": "x"}, "metadata", "invalid_type"),
        ({"name": "x"}, "name", "unknown_parameter"),
    ],
)
async def test_what_cannot_be_honoured_is_refused(
    fields: dict[str, Any], param: str, code: str | None
) -> None:
    """H1: with its place."""
    rig = Rig(FakeModel())
    found = await refused(rig.conversations.create(CALLER, body(**fields), ""))
    assert found == (param, code or "missing_required_parameter")
    if "items" in fields:
        made = await created(rig)
        added = rig.conversations.add_items(CALLER, made["id"], body(**fields), "")
        assert (await refused(added))[0] == param


async def test_what_is_missing_is_named() -> None:
    """H1: items to add, and metadata to put in the place of others."""
    rig = Rig(FakeModel())
    name = (await created(rig))["id"]
    api = rig.conversations
    for sent in (b"{}", b'{"items":null}', b'{"items":[]}'):
        assert (await refused(api.add_items(CALLER, name, sent, "")))[0] == "items"
    assert (await refused(api.update(CALLER, name, b"{}", "")))[0] == "metadata"
    assert (await refused(api.update(CALLER, name, b'{"metadata":{},"x":1}', "")))[0] == "x"


async def test_query_parameters_are_known_or_refused() -> None:
    """H2: `include` is taken wherever items are shown."""
    rig = Rig(FakeModel())
    name = (await created(rig, items=[said("x")]))["id"]
    [item] = (await listed(rig, name, "include[]=message.output_text.logprobs"))["data"]
    api = rig.conversations
    included = "include=message.input_image.image_url"
    await api.retrieve_item(CALLER, name, item["id"], included)
    await api.add_items(CALLER, name, body(items=[said("y")]), included)
    for work in (
        api.create(CALLER, b"", "x=1"),
        api.retrieve(CALLER, name, "x=1"),
        api.update(CALLER, name, body(metadata={}), "x=1"),
        api.delete(CALLER, name, "x=1"),
        api.list(CALLER, "x=1"),
        api.list_items(CALLER, name, "x=1"),
        api.add_items(CALLER, name, body(items=[said("y")]), "x=1"),
        api.retrieve_item(CALLER, name, item["id"], "x=1"),
        api.delete_item(CALLER, name, item["id"], "x=1"),
    ):
        assert await refused(work) == ("x", "unknown_parameter")
    for query in ("limit=0", "limit=101", "order=up", "after=none", "include=x"):
        with pytest.raises(InvalidRequest):
            await listed(rig, name, query)


_ASK: dict[str, Callable[[Rig, Caller, str], Awaitable[Answer]]] = {
    "retrieve": lambda rig, who, name: rig.conversations.retrieve(who, name, ""),
    "update": lambda rig, who, name: rig.conversations.update(who, name, body(metadata={}), ""),
    "delete": lambda rig, who, name: rig.conversations.delete(who, name, ""),
    "list items": lambda rig, who, name: rig.conversations.list_items(who, name, ""),
    "add": lambda rig, who, name: rig.conversations.add_items(
        who, name, body(items=[said("x")]), ""
    ),
    "retrieve item": lambda rig, who, name: rig.conversations.retrieve_item(who, name, "i", ""),
    "delete item": lambda rig, who, name: rig.conversations.delete_item(who, name, "i", ""),
}


@pytest.mark.parametrize("operation", sorted(_ASK))
async def test_foreign_and_missing_conversations_are_the_same_404(operation: str) -> None:
    """X1: nor do their items differ."""
    rig = Rig(FakeModel())
    name = (await created(rig, items=[{**said("x"), "id": "i"}]))["id"]
    messages = []
    for wanted in (name, "conv_none"):
        with pytest.raises(NotFound) as caught:
            await _ASK[operation](rig, STRANGER, wanted)
        messages.append(caught.value.message.replace(wanted, "?"))
    assert messages[0] == messages[1] == "Conversation with id '?' not found."
    if "item" in operation and operation != "list items":
        await rig.conversations.delete_item(CALLER, name, "i", "")
        with pytest.raises(EngineError, match="Item with id 'i' not found in conversation"):
            await _ASK[operation](rig, CALLER, name)
