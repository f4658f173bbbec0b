"""Each fault of the scripted model, as it is on the wire."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.support import replies
from tests.support.model_client import ask
from tests.support.replies import stream, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import CHAT, RESPONSES, Cut, Hold, Script, Start

HELLO = stream(text("Hel", "lo"))
MEGABYTE = 1 << 20


async def test_a_cut_behind_an_event_breaks_the_body(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Five whole events, then no end of the body."""
    model.script(Script(HELLO[:5], Cut()))
    got = await ask(model_client)
    assert (len(got.events), got.clean) == (5, False)


async def test_a_cut_after_n_bytes_breaks_inside_an_event(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Exactly so many bytes."""
    model.script(Script(HELLO.first_bytes(1234), Cut()))
    got = await ask(model_client)
    assert (len(got.body), got.clean) == (1234, False)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_before_the_status_leaves_no_response(
    model_client: aiohttp.ClientSession, model: ScriptedModel, reset: bool
) -> None:
    """By FIN or by RST."""
    model.script(Script(Cut(reset=reset)))
    with pytest.raises((aiohttp.ClientConnectionError, ConnectionError)):
        await ask(model_client)


async def test_a_whole_body_can_be_cut_too(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """The content-length promises more."""
    model.script(Script(replies.body(text("Hello")).cut(20)))
    got = await ask(model_client, stream=False)
    assert (len(got.body), got.clean) == (20, False)


async def test_a_stream_can_end_cleanly_without_its_terminal_event(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """As Ollama was seen to do; also behind the k-th event, also with nothing at all."""
    model.script(Script(HELLO[:-1]), Script(HELLO[:5]), Script(Start()))
    got = [await ask(model_client) for _ in range(3)]
    assert [one.clean for one in got] == [True, True, True]
    assert [len(one.events) for one in got] == [9, 5, 0]
    assert "completed" not in got[0].kinds


async def test_silence_lasts_until_the_test_ends_it(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """Before the status, before the first byte, in the middle: each gate opens one."""
    gates = [asyncio.Event() for _ in range(3)]
    status, first, middle = map(Hold, gates)
    model.script(Script(status, Start(), first, HELLO[:5], middle, HELLO[5:]))
    asking = asyncio.create_task(model_client.post(RESPONSES, json={"input": "hi", "stream": True}))
    await model.next_request()
    assert not asking.done()
    gates[0].set()
    async with asyncio.timeout(5), await asking as response:
        assert response.status == 200
        gates[1].set()
        head = b""
        while head.count(b"\n\n") < 5:
            head += await response.content.readany()
        assert head.count(b"\n\n") == 5
        gates[2].set()
        assert b"response.completed" in await response.read()


@pytest.mark.parametrize("size", [1, 7])
async def test_writes_are_split_every_n_bytes(
    model_client: aiohttp.ClientSession, model: ScriptedModel, size: int
) -> None:
    """Each a chunk of its own, through characters too."""
    model.script(Script(stream(text("é", "ü")).split_every(size)))
    got = await ask(model_client)
    assert {len(chunk) for chunk in got.chunks[:-1]} == {size}
    assert got.kinds[-1] == "completed"


async def test_writes_are_split_at_offsets_and_joined(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """At given bytes, three events per write, and all in one."""
    model.script(Script(HELLO.split_at(1, 10)), Script(HELLO.joined(3)), Script(HELLO.joined()))
    split, threes, one = [await ask(model_client) for _ in range(3)]
    assert [len(chunk) for chunk in split.chunks[:2]] == [1, 9]
    assert [chunk.count(b"\n\n") for chunk in threes.chunks] == [3, 3, 3, 1]
    assert len(one.chunks) == 1


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("crlf", b"\r\n\r\n"),
        ("mixed-line-ends", b"\r\n"),
        ("comments", b": comment 0\n\n"),
        ("done-marker", b"data: [DONE]\n\n"),
        ("multi-line-data", b"\ndata:  "),
        ("one-write", b"event: "),
    ],
)
async def test_a_stream_in_another_spelling_has_the_same_events(
    model_client: aiohttp.ClientSession, name: str, mark: bytes
) -> None:
    """The mark of the spelling is on the wire, and the events are those of the plain stream."""
    got = await ask(model_client, f"script/{name}")
    assert mark in got.body
    assert got.kinds == (await ask(model_client, "script/text")).kinds


async def test_event_lines_can_be_missing(model_client: aiohttp.ClientSession) -> None:
    """Only data lines are left."""
    got = await ask(model_client, "script/no-event-lines")
    assert b"event:" not in got.body
    assert got.kinds[-1] == "completed"


async def test_a_stream_can_be_compressed(model_client: aiohttp.ClientSession) -> None:
    """With its header, and nothing readable inside."""
    got = await ask(model_client, "script/gzip")
    assert got.headers["Content-Encoding"] == "gzip"
    assert got.body[:2] == b"\x1f\x8b"


async def test_a_line_can_be_longer_than_any_bound(model_client: aiohttp.ClientSession) -> None:
    """Over 16 MiB in one data line."""
    got = await ask(model_client, "script/long-line")
    assert max(map(len, got.body.split(b"\n"))) > 16 * MEGABYTE


async def test_refusals_have_their_status_headers_and_bodies(
    model_client: aiohttp.ClientSession,
) -> None:
    """Each as a real server words it."""
    got = {
        name: await ask(model_client, f"script/{name}")
        for name in ("429", "503", "500", "500-text")
    }
    assert got["429"].headers["Retry-After"] == got["503"].headers["Retry-After"] == "1"
    assert json.loads(got["500"].body)["error"]["code"] == 500
    assert got["500-text"].headers["Content-Type"].startswith("text/plain")
    missing = await ask(model_client, "script/404")
    assert json.loads(missing.body)["error"]["type"] == "NotFoundError"


async def test_a_refusal_can_be_of_twenty_megabytes(model_client: aiohttp.ClientSession) -> None:
    """A 400 as large as vLLM's validation dumps."""
    got = await ask(model_client, "script/400-20mb")
    assert got.status == 400
    assert len(got.body) > 20 * MEGABYTE


async def test_json_can_come_where_a_stream_was_asked(model_client: aiohttp.ClientSession) -> None:
    """200 and application/json."""
    got = await ask(model_client, "script/json-instead-of-stream")
    assert got.headers["Content-Type"].startswith("application/json")
    assert json.loads(got.body)["object"] == "response"


async def test_an_error_frame_can_come_inside_a_200(model_client: aiohttp.ClientSession) -> None:
    """Chat-style, without a type, in the middle of the answer."""
    got = await ask(model_client, "script/error-frame")
    assert (got.status, got.events[-1]["error"]["code"]) == (200, 500)


async def test_ids_and_indexes_can_repeat(model_client: aiohttp.ClientSession) -> None:
    """Two items under one index, or under one id."""
    same_index = await ask(model_client, "script/same-index")
    assert {e["output_index"] for e in same_index.events if "output_index" in e} == {0}
    same_id = await ask(model_client, "script/same-id")
    assert {e["item"]["id"] for e in same_id.events if "item" in e} == {"msg_same"}


async def test_usage_can_be_null(model_client: aiohttp.ClientSession) -> None:
    """In the terminal object."""
    got = await ask(model_client, "script/usage-null")
    assert got.events[-1]["response"]["usage"] is None


async def test_arguments_come_as_scripted(model_client: aiohttp.ClientSession) -> None:
    """At once, by the character, none, invalid; also under a name that nobody offered."""
    counts = {"arguments-at-once": 1, "arguments-by-character": 17, "no-arguments": 0}
    for name, count in counts.items():
        got = await ask(model_client, f"script/{name}")
        assert got.kinds.count("function_call_arguments.delta") == count
    invalid = (await ask(model_client, "script/invalid-arguments")).events[-1]["response"][
        "output"
    ][0]
    assert invalid["arguments"] == '{"city": Paris'
    unknown = (await ask(model_client, "script/unknown-tool")).events[-1]["response"]["output"][0]
    assert unknown["name"] == "no_such_tool"


async def test_prose_can_look_like_a_tool_call(model_client: aiohttp.ClientSession) -> None:
    """Split where a matcher has to decide."""
    got = await ask(model_client, "script/almost-a-call")
    deltas = [e["delta"] for e in got.events if e["type"] == "response.output_text.delta"]
    assert deltas[:2] == ["Write <tool", "_call"]


async def test_garbage_and_endless_streams_are_what_they_say(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """No UTF-8 at all; deltas without an end; the same on chat."""
    garbage = await ask(model_client, "script/garbage")
    with pytest.raises(UnicodeDecodeError):
        garbage.body.decode()
    model.script(Script(replies.endless(50)))
    assert (await ask(model_client)).kinds[-50:] == ["output_text.delta"] * 50
    model.script(Script(replies.endless(50)), path=CHAT)
    chat = await ask(model_client, path=CHAT)
    assert chat.events[-1]["choices"][0]["delta"] == {"content": "token "}


async def test_an_edit_reaches_any_field(
    model_client: aiohttp.ClientSession, model: ScriptedModel
) -> None:
    """For faults that have no name here."""
    model.script(Script(HELLO.edit(lambda e: None if "part" in e else e | {"odd": True})))
    got = await ask(model_client)
    assert "content_part.added" not in got.kinds
    assert all(event["odd"] for event in got.events)
