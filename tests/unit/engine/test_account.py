"""`engine.account`: what a response's log line says, and what Envoy is told (rules P5, X4)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from engine.errors import StorageUnavailable
from tests.support import replies
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel, Hang, Head, frames_of
from tests.support.fake_reply import FakeReply
from tests.support.replies import text

HELLO = frames_of(replies.stream(text("SECRET", "lo"), input_tokens=7))


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of each line that was written at a response's end."""
    ended = [r for r in caplog.records if r.getMessage() == "response ended"]
    return [r.__dict__["fields"] for r in ended]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    """As workers do by default."""
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("store", [True, False])
async def test_a_response_ends_with_one_line(
    caplog: pytest.LogCaptureFixture, *, stream: bool, store: bool
) -> None:
    """Ids, counts and times; what was said is in no line (P5)."""
    rig = Rig(FakeModel(*HELLO))
    reply = await rig.create(stream=stream, store=store, input="SECRET")
    await rig.settled()

    [line] = lines(caplog)
    assert (line["status"], line["model"], line["tenant"]) == ("completed", "m", "default")
    assert (line["request_id"], line["turns"], line["tool_calls"]) == ("req-1", 1, 0)
    assert (line["input_tokens"], line["client_gone"]) == (7, False)
    assert 0 <= line["ttft_ms"] <= line["duration_ms"]
    assert ("commit_ms" in line) == store
    assert line["bytes"] > 0
    assert line["response_id"].encode() in (reply.raw or reply.whole.body)  # type: ignore[union-attr]
    assert reply.told is not None
    assert line.items() >= reply.told.facts().items()
    assert "SECRET" not in caplog.text + str(lines(caplog))


async def test_a_client_that_left_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """P3: the line stands at the response's end, not at its client's."""
    gate = asyncio.Event()
    rig = Rig(FakeModel(*HELLO[:5], Hang(gate), *HELLO[5:]))
    reply = FakeReply()
    running = rig.start(reply, stream=True)
    await reply.until(b"output_text.delta")
    running.cancel()
    await asyncio.wait({running})
    assert lines(caplog) == []
    gate.set()
    await rig.settled()

    [line] = lines(caplog)
    assert (line["status"], line["client_gone"]) == ("completed", True)


async def test_a_refusal_of_the_model_server_is_told_by_its_code(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """X4: its message may repeat what was sent."""
    body = b'{"error": {"message": "SECRET", "type": "x", "code": "context_length_exceeded"}}'
    rig = Rig(FakeModel(Head(400), body))
    await rig.create()
    await rig.settled()

    [line] = lines(caplog)
    assert line["status"] == "refused"
    assert line["error"]
    assert "SECRET" not in str(line)


async def test_what_could_not_be_stored_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """P1: the line says what the client was told."""
    rig = Rig(FakeModel(*HELLO))
    rig.store.faults["finish"] = StorageUnavailable("gone")
    await rig.create(stream=True)
    await rig.settled()

    [line] = lines(caplog)
    assert line["status"] == "failed"
    assert line["commit_ms"] >= 0
