"""`extproc.operations`: a matched operation is carried out; what goes wrong becomes an answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.errors import NotFound, StorageUnavailable
from extproc.operations import answer_errors, perform
from extproc.routes import find
from tests.support import replies
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import text

HELLO = frames_of(replies.stream(text("Hel", "lo")))


async def test_each_operation_reaches_the_engine() -> None:
    """With id and query; all but `create` are whole answers."""
    rig = Rig(FakeModel(*HELLO))

    async def ask(method: str, target: str, body: bytes = b"") -> FakeReply:
        reply = FakeReply()
        await perform(rig.endpoints, find(method, target), CALLER, body, reply)
        return reply

    made = (await ask("POST", "/v1/responses", b'{"model":"m","input":"hi"}')).json
    path = f"/v1/responses/{made['id']}"
    assert (await ask("GET", path)).json == made
    assert (await ask("GET", "/v1/responses?limit=1")).json["data"] == [made]
    assert len((await ask("GET", f"{path}/input_items")).json["data"]) == 1
    assert (await ask("DELETE", path)).json["deleted"] is True
    with pytest.raises(NotFound):
        await ask("POST", f"{path}/cancel")
    streamed = await ask("POST", "/v1/responses", b'{"model":"m","input":"hi","stream":true}')
    assert streamed.ended


async def test_an_error_becomes_an_answer() -> None:
    """R15: with its headers."""

    async def fails() -> None:
        raise StorageUnavailable("gone")

    reply = FakeReply()
    await answer_errors(fails(), reply)
    assert reply.whole is not None
    assert (reply.whole.status, reply.whole.headers) == (503, {"retry-after": "1"})


async def test_a_bug_becomes_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """R15: its traceback is for the log."""

    async def fails() -> None:
        raise ZeroDivisionError("secret")

    reply = FakeReply()
    await answer_errors(fails(), reply)
    assert reply.whole is not None
    assert reply.whole.status == 500
    assert "secret" not in json.dumps(reply.json)
    assert "secret" in caplog.text


async def test_a_client_that_leaves_is_not_answered() -> None:
    """A cancellation is no error."""

    async def leaves() -> None:
        raise asyncio.CancelledError

    reply = FakeReply()
    with pytest.raises(asyncio.CancelledError):
        await answer_errors(leaves(), reply)
    assert reply.whole is None
