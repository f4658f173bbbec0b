"""Files in requests: what the model is sent of them, what is shown, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from engine.attachments import FetchUrl
from engine.errors import InvalidRequest
from engine.limits import Limits
from extproc.outbound.fetch import Fetcher
from extproc.outbound.policy import OutboundPolicy
from extproc.outbound.transport import GuardedTransport
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.kept_files import kept
from tests.support.replies import stream, text

PNG = b"\x89PNG\r\n\x1a\nrest"
ASK = {"type": "input_text", "text": "What is it?"}


def a_rig(**limits: Any) -> Rig:
    return Rig(FakeModel(*frames_of(stream(text("ok")))), limits=Limits(save_wait=0.0, **limits))


class Fetching(Rig):
    """A rig that fetches URLs by a function."""

    def __init__(self, fetch: FetchUrl, **limits: Any) -> None:
        self._fetch = fetch
        model = FakeModel(*frames_of(stream(text("ok"))))
        super().__init__(model, limits=Limits(save_wait=0.0, **limits))

    async def fetch(self, url: str, most: int, param: str) -> bytes:
        """Return what the function gives."""
        return await self._fetch(url, most, param)


async def asked(rig: Rig, *parts: dict[str, Any], **fields: Any) -> FakeReply:
    """Ask with parts in a user's message."""
    return await rig.create(input=[{"role": "user", "content": [ASK, *parts]}], **fields)


def a_message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def _status(reply: FakeReply) -> int:
    assert reply.whole is not None
    return reply.whole.status


def sent(rig: Rig, call: int = -1) -> list[Any]:
    """Return the content of the first message that the model was sent."""
    content: list[Any] = json.loads(rig.model.bodies[call])["input"][0]["content"]
    return content


async def test_a_file_is_sent_as_text_under_its_name() -> None:
    """M8: by id, by its data (as a data URL or bare), by its URL; it is shown as it came."""
    rig = a_rig()
    file_id = await kept(rig, b"\xef\xbb\xbfone")
    rig.pages["https://x.example/dir/b%20c.md?q"] = b"three"
    bare = base64.b64encode(b"two").decode()
    parts = [
        {"type": "input_file", "file_id": file_id},
        {"type": "input_file", "filename": "d.csv", "file_data": bare},
        {"type": "input_file", "filename": "e", "file_data": f"data:text/csv;base64,{bare}"},
        {"type": "input_file", "file_url": "https://x.example/dir/b%20c.md?q"},
    ]
    reply = await asked(rig, *parts)
    assert [part["text"] for part in sent(rig)] == [
        "What is it?",
        "File: a.txt\n\none",
        "File: d.csv\n\ntwo",
        "File: e\n\ntwo",
        "File: b c.md\n\nthree",
    ]
    page = await rig.responses.list_input_items(CALLER, reply.json["id"], "")
    assert json.loads(page.body)["data"][0]["content"][1:] == parts


async def test_an_image_is_sent_as_a_data_url() -> None:
    """M8: with the type that it has."""
    rig = a_rig()
    file_id = await kept(rig, PNG, "a.jpg")
    await asked(rig, {"type": "input_image", "file_id": file_id, "detail": "low"})
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert sent(rig)[1] == {"type": "input_image", "image_url": url, "detail": "low"}


async def test_the_output_of_a_function_may_be_a_file() -> None:
    """M8: its content is what the model is told."""
    rig = a_rig()
    file_id = await kept(rig, b"rows")
    await rig.create(
        input=[
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_file", "file_id": file_id}],
            },
        ]
    )
    output = json.loads(rig.model.bodies[-1])["input"][1]["output"]
    assert output == "File: a.txt\n\nrows"


async def test_a_deleted_file_stays_in_its_conversation() -> None:
    """M9: the next turn is sent the same bytes."""
    rig = a_rig()
    file_id = await kept(rig, b"one")
    first = await asked(rig, {"type": "input_file", "file_id": file_id})
    await rig.files.delete(CALLER, file_id, "")
    await rig.create(input="and?", previous_response_id=first.json["id"])
    assert sent(rig, 0) == sent(rig, 1)


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"type": "input_file", "file_id": "file-x"}, "file_id", "file_not_found"),
        ({"type": "input_image", "file_id": "file-x"}, "file_id", "file_not_found"),
        ({"type": "input_file", "file_data": "?"}, "file_data", "invalid_value"),
        ({"type": "input_file", "file_data": "JVBERi0xLjc="}, "file_data", "unsupported_file"),
        ({"type": "input_file", "file_data": "AAEC"}, "file_data", "unsupported_file"),
        ({"type": "input_file", "file_data": "//79"}, "file_data", "unsupported_file"),
        ({"type": "input_file", "file_data": "YWFhYWFhYWFh"}, "file_data", "file_too_large"),
        ({"type": "input_image", "file_id": "file-a.txt"}, "file_id", "unsupported_file"),
        ({"type": "input_file", "file_id": "file-b.txt"}, "file_id", "file_too_large"),
        ({"type": "input_file", "file_id": "file-c.txt"}, "file_id", "file_not_found"),
    ],
)
async def test_what_cannot_be_sent_is_refused(part: dict[str, str], param: str, code: str) -> None:
    """H1, X1, X5: with the place in the request, and the model is not called."""
    rig = a_rig(input_file_bytes=8)
    await kept(rig, b"text")
    await kept(rig, b"too long for us", "b.txt")
    await kept(rig, b"text", "c.txt", tenant="somebody else")
    reply = await asked(rig, part)
    error = reply.json["error"]
    assert (_status(reply), error["code"]) == (400, code)
    assert error["param"] == f"input[0].content[1].{param}"
    assert rig.model.bodies == []


async def test_all_files_of_a_request_together_are_bounded() -> None:
    """X5: many small ones are as large as a large one, in one item or in several."""
    rig = a_rig(context_bytes=20, input_files=3)
    part = {"type": "input_file", "file_data": base64.b64encode(b"123456789").decode()}
    reply = await asked(rig, part, part, part)
    assert reply.json["error"]["code"] == "file_too_large"
    assert reply.json["error"]["param"] == "input[0].content[3]"
    reply = await rig.create(input=[a_message(part)] * 3)
    assert (_status(reply), reply.json["error"]["code"]) == (400, "file_too_large")
    assert reply.json["error"]["param"] == "input[2].content[0]"
    small = {"type": "input_file", "file_data": "YQ=="}
    reply = await rig.create(input=[a_message(small)] * 4)
    assert (_status(reply), reply.json["error"]["code"]) == (400, "invalid_value")
    assert reply.json["error"]["param"] == "input[3].content[0]"
    assert rig.model.bodies == []


async def test_files_past_the_bound_are_not_read() -> None:
    """X5: a small request that names one file often costs what the bound is."""
    asked_for = []

    async def fetch(url: str, _most: int, _param: str) -> bytes:
        asked_for.append(url)
        return b"123456789"

    rig = Fetching(fetch, context_bytes=20)
    part = {"type": "input_file", "file_url": "https://x.example/a"}
    reply = await rig.create(input=[a_message(part)] * 12)
    assert reply.json["error"]["param"] == "input[2].content[0]"
    assert len(asked_for) == 3


async def test_items_of_a_conversation_have_the_same_bounds() -> None:
    """X5: files and references there are put in as often as they are named."""
    rig = a_rig(context_bytes=400)
    part = {"type": "input_file", "file_data": base64.b64encode(b"1" * 150).decode()}
    body = json.dumps({"items": [a_message(part)] * 3}).encode()
    with pytest.raises(InvalidRequest) as refused:
        await rig.conversations.create(CALLER, body, "")
    assert (refused.value.code, refused.value.param) == ("file_too_large", "items[2].content[0]")

    message = {"id": "msg_1", "role": "user", "content": "1" * 150}
    await rig.conversations.create(CALLER, json.dumps({"items": [message]}).encode(), "")
    named = [{"type": "item_reference", "id": "msg_1"}] * 3
    with pytest.raises(InvalidRequest) as refused:
        await rig.conversations.create(CALLER, json.dumps({"items": named}).encode(), "")
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "items")


async def test_all_files_of_a_request_have_one_deadline() -> None:
    """X5: what is never answered is a 400 that says where."""

    async def never(_url: str, _most: int, _param: str) -> bytes:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    rig = Fetching(never, input_seconds=0.01)
    reply = await asked(rig, {"type": "input_file", "file_url": "https://x.example/a"})
    error = reply.json["error"]
    assert (_status(reply), error["code"]) == (400, "files_too_slow")
    assert error["param"] == "input[0].content[1]"


@pytest.mark.parametrize("url", ["https://[x/", "https://a\u2100b/"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    """H1, P5: with the place in the request, whatever a parser would say of it."""
    rig = Fetching(Fetcher(GuardedTransport(OutboundPolicy(), body_limit=10)).fetch)
    reply = await asked(rig, {"type": "input_file", "file_url": url})
    error = reply.json["error"]
    assert (_status(reply), error["param"]) == (400, "input[0].content[1].file_url")


async def test_a_file_in_a_conversation_is_read_when_it_is_put_there() -> None:
    """M7, M8: and is sent with its next turn."""
    rig = a_rig()
    file_id = await kept(rig, b"one")
    message = {"role": "user", "content": [{"type": "input_file", "file_id": file_id}]}
    body = json.dumps({"items": [message]}).encode()
    made = json.loads((await rig.conversations.create(CALLER, body, "")).body)
    await rig.create(input="and?", conversation=made["id"])
    assert json.loads(rig.model.bodies[-1])["input"][0]["content"] == "File: a.txt\n\none"
