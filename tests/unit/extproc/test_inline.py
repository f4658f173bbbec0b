"""`extproc.inline`: an exchange whose request is its first model turn, over ext_proc messages."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import brotli
import pytest

from engine.errors import UpstreamFailed
from extproc.admission import Admission
from extproc.exchange import Exchanges
from extproc.held_request import HeldRequest
from extproc.messages import read_head
from extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from tests.support import replies
from tests.support.engine_rig import Rig, final, small, turns
from tests.support.fake_envoy import JSON, body, head, response_body, response_head
from tests.support.fake_envoy import trailers as request_trailers
from tests.support.fake_inline import InlineEnvoy
from tests.support.fake_model import JSON as JSON_TYPE
from tests.support.fake_model import Break, FakeModel, Hang, Head, frames_of
from tests.support.replies import text
from tests.support.riding import riding
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
REQUEST = b'{"model":"m","input":"hi"}'
STREAMED = b'{"model":"m","input":"hi","stream":true}'
CREATE = head("POST", "/v1/responses")
STREAM_OR_WHOLE = pytest.mark.parametrize("sent", [REQUEST, STREAMED], ids=["whole", "stream"])


class Served:
    """Inline exchanges over a rig; `onward` is asked for all that does not travel on."""

    def __init__(
        self, *steps: Any, onward: Any = HELLO, silence: float = 5.0, **limits: Any
    ) -> None:
        self.model = FakeModel(*(steps or HELLO))
        self.onward = FakeModel(*onward)
        self.rig = Rig(self.onward, limits=small(**limits))
        admission = Admission(body_limit=10 << 20, forward_authorization=False)
        terms = riding(self.onward, silence)
        self.exchanges = Exchanges(self.rig.endpoints, admission, terms)

    def envoy(self, *messages: ProcessingRequest, **answer: Any) -> InlineEnvoy:
        return InlineEnvoy(self.model, *messages, **answer)

    async def serve(self, envoy: InlineEnvoy) -> InlineEnvoy:
        async with asyncio.timeout(5):
            await self.exchanges.serve(envoy)
        return envoy

    async def send(self, sent: bytes, **answer: Any) -> InlineEnvoy:
        return await self.serve(self.envoy(CREATE, body(sent, end=True), **answer))

    async def status(self) -> str:
        await self.rig.settled()
        return (await self.rig.the_stored()).status


# -- the request -------------------------------------------------------------------------------------


@STREAM_OR_WHOLE
async def test_the_request_travels_once_and_rewritten(sent: bytes) -> None:
    """X4: its own headers are taken from it, those of the gateway and of tracing are on it."""
    given = {
        **JSON, "authorization": "a", "cookie": "c", "x-request-id": "r", "traceparent": "t",
        "content-length": "9", "accept-encoding": "gzip", "host": "gateway", "x-forwarded-for": "1",
    }  # fmt: skip
    served = Served()
    envoy = await served.serve(
        served.envoy(head("POST", "/v1/responses", given), body(sent, end=True))
    )

    assert envoy.turn is not None
    assert len(envoy.turn.pop("x-holdfast-affinity")) == 32
    assert envoy.turn == {
        ":method": "POST", ":path": "/v1/responses", ":authority": "gateway", "host": "gateway",
        "accept-encoding": "identity", "x-request-id": "r", "traceparent": "t",
    }  # fmt: skip
    assert b'"stream":true' in envoy.turn_body
    assert served.model.bodies == [envoy.turn_body]
    assert served.onward.bodies == []


async def test_a_body_of_megabytes_travels_in_pieces() -> None:
    """E7: each of them bounded, the last one says that it is the last."""
    served = Served()
    long = "x" * 5_000_000
    envoy = await served.send(b'{"model":"m","input":"%s"}' % long.encode())

    assert envoy.status == 200
    assert long.encode() in envoy.turn_body


@STREAM_OR_WHOLE
async def test_a_request_that_ends_with_trailers_does_not_travel(sent: bytes) -> None:
    """E1: it is answered by relay, because Envoy would send its body twice."""
    served = Served()
    envoy = await served.serve(served.envoy(CREATE, body(sent), request_trailers()))
    assert envoy.status == 200
    assert b"Hello" in (envoy.stream or envoy.whole)
    assert (len(served.model.bodies), len(served.onward.bodies)) == (0, 1)


async def test_only_a_create_request_travels() -> None:
    """A cancel has a body, too, and is answered by us."""
    served = Served()
    envoy = await served.serve(
        served.envoy(head("POST", "/v1/responses/resp_x/cancel"), body(b"", end=True))
    )
    assert envoy.error == (404, "not_found")
    assert envoy.turn is None


# -- the answer --------------------------------------------------------------------------------------


async def test_events_take_the_place_of_the_model_servers_body() -> None:
    """R1-R11: and our head that of its head, of which nothing is left."""
    served = Served()
    envoy = await served.send(
        STREAMED, answered={"content-length": "5", "server": "vllm", "set-cookie": "c"}
    )

    assert envoy.status == 200
    assert envoy.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    assert final(check_stream(envoy.stream))["status"] == "completed"
    assert not envoy.aborted
    assert await served.status() == "completed"


@STREAM_OR_WHOLE
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", lambda data: zlib.compress(data, wbits=31)),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("identity", bytes),
        ("GZIP, identity", lambda data: zlib.compress(data, wbits=31)),
    ],
)
async def test_an_encoded_answer_is_read(sent: bytes, encoding: str, pack: Any) -> None:
    """E7: in pieces that end anywhere; the client is sent it plain."""
    packed = pack(b"".join(HELLO))
    pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]

    envoy = await Served(*pieces).send(sent, answered={"content-encoding": encoding})

    assert envoy.status == 200
    assert "content-encoding" not in envoy.headers
    assert b"Hello" in (envoy.stream or envoy.whole)


@pytest.mark.parametrize("encoding", ["zstd", "gzip, br", "gzip"])
async def test_an_answer_that_cannot_be_decoded_is_a_failure(encoding: str) -> None:
    """R15: an encoding that nobody asked for, two at once, one that is not what it says."""
    envoy = await Served().send(REQUEST, answered={"content-encoding": encoding})
    assert envoy.status == 502
    assert "encoded" in envoy.json["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_an_answer_that_grows_without_end_is_cut_off(encoding: str) -> None:
    """X5: what it decodes to is bounded while it is decoded."""
    long = b"data: " + b"x" * (64 << 20)
    packed = (
        zlib.compress(long, wbits=31) if encoding == "gzip" else brotli.compress(long, quality=1)
    )
    envoy = await Served(packed).send(REQUEST, answered={"content-encoding": encoding})
    assert envoy.status == 502


async def test_an_answer_that_ends_with_trailers_is_answered_by_them() -> None:
    """E1: what is appended goes before them."""
    envoy = await Served().send(STREAMED, trailers=True)
    assert envoy.ended
    assert final(check_stream(envoy.stream))["status"] == "completed"


@STREAM_OR_WHOLE
async def test_a_refusal_is_the_clients(sent: bytes) -> None:
    """R15, R16: the model server's status and a body of ours; nothing is stored."""
    served = Served(Head(429, JSON_TYPE, retry_after=3), b'{"error":{"message":"Too many."}}')
    envoy = await served.send(sent)

    assert envoy.error == (429, "rate_limit_exceeded")
    assert envoy.headers["retry-after"] == "3"
    assert await served.rig.stored() == []


@STREAM_OR_WHOLE
async def test_an_answer_without_a_body_is_an_answer(sent: bytes) -> None:
    """R15: Envoy tells of its end in the head."""
    served = Served(Head(503, JSON_TYPE))
    envoy = await served.send(sent, empty=True)
    assert envoy.error == (503, "server_error")


async def test_an_empty_200_after_the_start_is_told_in_one_piece() -> None:
    """R1, R16: where there is no body, no events can take its place."""
    gate = asyncio.Event()
    nothing = Head(200, "text/event-stream")
    served = Served(Hang(gate), nothing, onward=[nothing], open_after=0.01)
    envoy = served.envoy(CREATE, body(STREAMED, end=True), empty=True)
    serving = asyncio.ensure_future(served.serve(envoy))
    await served.rig.until(lambda: served.rig.live and served.rig.notified)
    gate.set()
    await serving

    assert envoy.headers["content-type"].startswith("text/event-stream")
    assert final(check_stream(envoy.whole))["status"] == "failed"


async def test_a_model_server_that_is_silent_is_given_up() -> None:
    """R15: between two chunks as before its status."""
    never = asyncio.Event()
    for steps in ([Hang(never)], [*HELLO[:3], Hang(never)]):
        envoy = await Served(*steps, silence=0.05).send(REQUEST)
        assert envoy.status == 502
        assert "silent" in envoy.json["error"]["message"]
        assert envoy.aborted


async def test_a_route_that_keeps_the_answers_head_says_so() -> None:
    """A misconfigured Envoy must be noticed, not waited for."""
    served = Served()
    envoy = served.envoy(CREATE, body(REQUEST, end=True))
    envoy.headless = True
    await served.serve(envoy)
    assert envoy.status == 500
    assert "response header mode" in envoy.json["error"]["message"]


# -- the stream breaks off -------------------------------------------------------------------------------


@STREAM_OR_WHOLE
async def test_a_model_server_that_breaks_off_ends_the_exchange(sent: bytes) -> None:
    """P3: Envoy ends the client's stream; what was made is stored as failed."""
    served = Served(*HELLO[:5], Break())
    envoy = await served.send(sent)

    assert envoy.cut
    assert not envoy.ended
    assert await served.status() == "failed"


@pytest.mark.parametrize(
    ("policy", "steps", "statuses"),
    [
        ("continue", 0, []),
        ("continue", 5, ["failed"]),
        ("cancel", 0, ["incomplete"]),
        ("cancel", 5, ["incomplete"]),
    ],
)
async def test_a_client_that_leaves_ends_its_turn(
    policy: str, steps: int, statuses: list[str]
) -> None:
    """P3: by the policy `cancel` as was asked for; else a failure, nothing of it left if nothing was sent."""
    served = Served(*HELLO[:steps], Hang(asyncio.Event()))
    asked = head("POST", "/v1/responses", {**JSON, "holdfast-on-disconnect": policy})
    envoy = served.envoy(asked, body(STREAMED, end=True))
    serving = asyncio.ensure_future(served.serve(envoy))
    await served.rig.until(served.model.called.is_set)
    if steps:
        await envoy.until(b"output_text.delta")

    envoy.leave()
    await serving
    await served.rig.settled()

    assert [stored.status for stored in await served.rig.stored()] == statuses


class Reset(InlineEnvoy):
    """Takes the rewritten head and resets the stream at the body: the transport cancels who writes."""

    async def write(self, message: ProcessingResponse) -> None:
        if message.WhichOneof("response") == "request_body":
            raise asyncio.CancelledError("Envoy gave the stream up")
        await super().write(message)


async def test_a_reset_while_the_request_is_sent_on_fails_its_turn() -> None:
    """P3: it is no cancellation of the run, which would end as if the gateway had been stopped."""
    served = Served()
    held = HeldRequest(
        Reset(served.model, CREATE), read_head(CREATE.request_headers), riding(served.onward)
    )
    with pytest.raises(UpstreamFailed, match="broke off"):
        await held.call("/v1/responses", REQUEST, {})


async def test_a_cancelled_call_lets_the_request_be_sent_on_whole() -> None:
    """R16: who answers the client waits for that; the cancellation itself is one."""
    served = Served()
    envoy = served.envoy(CREATE)
    envoy.slow = asyncio.Event()
    held = HeldRequest(envoy, read_head(CREATE.request_headers), riding(served.onward))
    calling = asyncio.ensure_future(held.call("/v1/responses", REQUEST, {}))
    await turns()
    calling.cancel()
    await asyncio.wait({calling})
    assert calling.cancelled()
    envoy.slow.set()
    await held.settled()
    assert envoy.turn_body == REQUEST


async def test_an_exchange_that_is_cancelled_while_it_parts_leaves_no_run_behind() -> None:
    """P4: Envoy ends its stream and then gives up the call; the run must not wait for its answer for ever."""
    served = Served(*HELLO[:5], Hang(asyncio.Event()), silence=600.0)
    envoy = served.envoy(CREATE, body(STREAMED, end=True))
    serving = asyncio.ensure_future(served.serve(envoy))
    await envoy.until(b"output_text.delta")

    envoy.leave()
    # Up to the place where it waits for its parts to end.
    for _ in range(3):
        await asyncio.sleep(0)
        serving.cancel()
    await asyncio.wait({serving})

    assert await served.status() == "failed"


async def test_an_answer_of_envoys_own_passes() -> None:
    """E1: a timeout while the store works; ours would come too late."""
    served = Served()
    served.rig.store.holds["load_context"] = asyncio.Event()
    sent = b'{"model":"m","input":"hi","previous_response_id":"resp_%032x"}' % 1
    envoy = served.envoy(
        CREATE, body(sent, end=True), response_head(504), response_body(b"late", end=True)
    )
    envoy.passes = True
    envoy.coming.put_nowait(None)

    await served.serve(envoy)

    assert [m.WhichOneof("response") for m in envoy.passed] == ["response_headers", "response_body"]
    assert served.model.bodies == []
