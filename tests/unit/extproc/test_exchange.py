"""`extproc.exchange`: one HTTP request over ext_proc messages, from its head to its answer."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from engine import affinity
from extproc.admission import Admission
from extproc.exchange import Exchanges
from extproc.identity import Identify, from_header, nobody_in_particular
from extproc.pb.ext_proc_pb2 import ProcessingMode, ProcessingRequest
from tests.support import replies
from tests.support.engine_rig import Rig, final
from tests.support.fake_envoy import (
    JSON,
    FakeEnvoy,
    body,
    head,
    response_body,
    response_head,
    response_trailers,
    trailers,
)
from tests.support.fake_inline import InlineEnvoy
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.replies import text
from tests.support.riding import riding
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
REQUEST = b'{"model":"m","input":"hi"}'
STREAMED = b'{"model":"m","input":"hi","stream":true}'
CREATE = head("POST", "/v1/responses")


class Served:
    """Exchanges over a rig, for one request after the other."""

    inline = False

    def __init__(
        self,
        *steps: Any,
        limit: int = 1000,
        authorization: bool = False,
        identify: Identify = nobody_in_particular,
    ) -> None:
        self.rig = Rig(FakeModel(*(steps or HELLO)))
        admission = Admission(
            body_limit=limit, forward_authorization=authorization, identify=identify
        )
        self.exchanges = Exchanges(self.rig.endpoints, admission, riding(self.rig.model))

    async def send(self, *messages: ProcessingRequest, patient: bool = False) -> FakeEnvoy:
        envoy = FakeEnvoy(*messages, patient=patient)
        if self.inline and messages:
            envoy = InlineEnvoy(self.rig.model, *messages)
        async with asyncio.timeout(5):
            await self.exchanges.serve(envoy)
        return envoy


@pytest.fixture(params=["relay", "inline"])
def _either_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client is answered is the same whether or not its request travels on."""
    monkeypatch.setattr(Served, "inline", request.param == "inline")


EITHER_MODE = pytest.mark.usefixtures("_either_mode")


# -- whole requests ----------------------------------------------------------------------------------


@EITHER_MODE
async def test_a_request_is_answered_whole() -> None:
    """R15: JSON, with its content type."""
    envoy = await Served().send(CREATE, body(REQUEST, end=True))
    assert (envoy.status, envoy.headers) == (200, JSON)
    assert envoy.json["output"][0]["content"][0]["text"] == "Hello"


@EITHER_MODE
async def test_a_request_is_answered_by_a_stream() -> None:
    """R1-R11: and its head says that nothing on the way shall hold it back."""
    envoy = await Served().send(CREATE, body(STREAMED, end=True))
    assert envoy.status == 200
    assert envoy.ended
    assert envoy.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
    assert final(check_stream(envoy.stream))["status"] == "completed"


def pieces(size: int) -> list[ProcessingRequest]:
    return [body(REQUEST[at : at + size]) for at in range(0, len(REQUEST), size)]


@EITHER_MODE
@pytest.mark.parametrize(
    "messages",
    [
        [body(REQUEST, end=True)],
        [*pieces(1), body(b"", end=True)],
        [*pieces(5), trailers()],
        [body(b""), body(REQUEST), body(b""), body(b"", end=True)],
        [body(REQUEST, end=True), body(b"", end=True)],
        [body(REQUEST, end=True), trailers()],
        [body(REQUEST, end=True), body(b"", end=True), trailers()],
    ],
    ids=[
        "one message", "byte by byte", "ended by trailers", "with empty ones",
        "two ends", "an end and trailers", "three ends",
    ],
)  # fmt: skip
async def test_a_body_may_come_in_any_way(messages: list[ProcessingRequest]) -> None:
    """E1: a second end_of_stream is harmless."""
    envoy = await Served().send(CREATE, *messages)
    assert envoy.status == 200
    assert envoy.json["status"] == "completed"


async def test_an_answer_waits_for_the_whole_body() -> None:
    """Nothing is sent while the client is still sending."""
    served = Served()
    envoy = FakeEnvoy(CREATE, body(REQUEST[:5]), patient=True)
    serving = asyncio.ensure_future(served.exchanges.serve(envoy))
    async with asyncio.timeout(5):
        await envoy.waiting.wait()
    assert envoy.status is None
    assert not served.rig.model.called.is_set()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@EITHER_MODE
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "gzip, identity"])
async def test_a_compressed_body_is_decoded(encoding: str) -> None:
    """Some clients compress what they send."""
    packed = head("POST", "/v1/responses", {**JSON, "content-encoding": encoding})
    envoy = await Served().send(packed, body(gzip.compress(REQUEST), end=True))
    assert envoy.status == 200


@EITHER_MODE
@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"]
)
async def test_json_is_taken_however_it_is_named(media_type: str) -> None:
    """With a charset, in capitals, and without a name."""
    named = head("POST", "/v1/responses", {"content-type": media_type})
    assert (await Served().send(named, body(REQUEST, end=True))).status == 200
    assert (await Served().send(head("POST", "/v1/responses", {}), body(REQUEST, end=True))).status


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/responses/{id}"),
        ("GET", "/v1/responses/{id}/input_items"),
        ("GET", "/v1/responses?limit=1"),
        ("DELETE", "/v1/responses/{id}"),
    ],
)
@pytest.mark.parametrize("mode", [ProcessingMode.NONE, ProcessingMode.FULL_DUPLEX_STREAMED])
async def test_an_operation_without_a_body_is_answered_at_its_head(
    method: str, target: str, mode: ProcessingMode.BodySendMode
) -> None:
    """Whatever the body mode of the route, whether or not an end is announced."""
    served = Served()
    made = (await served.send(CREATE, body(REQUEST, end=True))).json["id"]
    for end in (True, False):
        asked = head(method, target.format(id=made), {}, end=end, mode=mode)
        envoy = await served.send(asked, patient=not end)
        assert envoy.status == (404 if method == "DELETE" and not end else 200)
        assert envoy.json


@EITHER_MODE
async def test_a_cancel_with_an_empty_body_is_answered() -> None:
    """openai_api.md: the SDK sends none, with the content type of JSON."""
    served = Served()
    made = (await served.send(CREATE, body(REQUEST, end=True))).json["id"]
    envoy = await served.send(head("POST", f"/v1/responses/{made}/cancel"), body(b"", end=True))
    assert envoy.error == (400, "response_not_in_background")


async def test_chosen_headers_reach_the_model_and_no_others() -> None:
    """X4: authorization only where a setting says so."""
    given = {**JSON, "x-request-id": "r", "traceparent": "t", "authorization": "a", "cookie": "c"}
    for authorization in (False, True):
        served = Served(authorization=authorization)
        await served.send(head("POST", "/v1/responses", given), body(REQUEST, end=True))
        expected = {"x-request-id": "r", "traceparent": "t"}
        if authorization:
            expected["authorization"] = "a"
        [sent] = served.rig.model.headers
        assert {**sent, affinity.HEADER: ""} == {**expected, affinity.HEADER: ""}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses"),
        ("GET", "/v1/responses/resp_x"),
        ("PUT", "/v1/responses"),
        ("GET", "/v1/unknown"),
    ],
)
async def test_a_request_without_an_identity_is_refused_at_its_head(
    method: str, target: str
) -> None:
    """X2: before its body, its media type and its path are looked at; never a default tenant."""
    served = Served(identify=from_header("x-tenant"))
    envoy = await served.send(head(method, target, {"content-length": "9" * 9}), patient=True)
    assert envoy.error == (401, "missing_identity")
    assert envoy.headers["www-authenticate"] == "Bearer"
    assert not served.rig.model.called.is_set()


@EITHER_MODE
async def test_a_response_belongs_to_the_tenant_that_envoy_named() -> None:
    """X1, X2: whatever the body says."""
    served = Served(identify=from_header("x-tenant"))
    request = b'{"model":"m","input":"hi","user":"other","metadata":{"x-tenant":"other"}}'
    mine = head("POST", "/v1/responses", {**JSON, "x-tenant": "acme"})
    made = (await served.send(mine, body(request, end=True))).json["id"]
    for tenant, status in (("acme", 200), ("other", 404), ("default", 404)):
        asked = head("GET", f"/v1/responses/{made}", {"x-tenant": tenant}, end=True)
        assert (await served.send(asked)).status == status


# -- requests that are refused -----------------------------------------------------------------------


@EITHER_MODE
@pytest.mark.parametrize(
    ("messages", "status", "code"),
    [
        ([head("GET", "/v1/models", end=True)], 404, "unknown_url"),
        ([head("PUT", "/v1/responses")], 405, "method_not_allowed"),
        ([head("GET", "/v1/responses/resp_x", end=True)], 404, "not_found"),
        ([head("POST", "/v1/responses", end=True)], 400, "invalid_json"),
        ([CREATE, body(b"", end=True)], 400, "invalid_json"),
        ([CREATE, body(b"{", end=True)], 400, "invalid_json"),
        ([CREATE, body(b"{}", end=True)], 400, "missing_required_parameter"),
        ([CREATE, trailers()], 400, "invalid_json"),
        (
            [head("POST", "/v1/responses", {"content-type": "text/plain"}), body(b"")],
            415,
            "unsupported_media_type",
        ),
        (
            [head("POST", "/v1/responses", {"content-type": "multipart/form-data; boundary=x"})],
            415,
            "unsupported_media_type",
        ),
        (
            [
                head("POST", "/v1/responses", {**JSON, "content-encoding": "rot13"}),
                body(REQUEST, end=True),
            ],
            415,
            "unsupported_media_type",
        ),
        (
            [
                head("POST", "/v1/responses", {**JSON, "content-encoding": "gzip"}),
                body(gzip.compress(REQUEST)[:-9], end=True),
            ],
            400,
            "invalid_encoding",
        ),
    ],
)
async def test_a_wrong_request_is_refused(
    messages: list[ProcessingRequest], status: int, code: str
) -> None:
    """R15: its error is a whole answer; the model is not called."""
    served = Served()
    envoy = await served.send(*messages)
    assert envoy.error == (status, code)
    assert not served.rig.model.called.is_set()


@pytest.mark.parametrize(
    "mode", [ProcessingMode.NONE, ProcessingMode.BUFFERED, ProcessingMode.STREAMED]
)
async def test_a_route_in_the_wrong_body_mode_says_so(mode: ProcessingMode.BodySendMode) -> None:
    """A misconfigured Envoy must be noticed, not waited for."""
    envoy = await Served().send(head("POST", "/v1/responses", mode=mode), patient=True)
    assert envoy.status == 500
    assert "FULL_DUPLEX_STREAMED" in envoy.json["error"]["message"]


@EITHER_MODE
@pytest.mark.parametrize(
    "messages",
    [
        [head("POST", "/v1/responses", {**JSON, "content-length": "1001"})],
        [head("POST", "/v1/responses", {**JSON, "content-length": "9" * 30})],
        [CREATE, *[body(b" " * 400)] * 3],
        [CREATE, body(b" " * 1001)],
    ],
    ids=["by its length", "by an absurd length", "by count", "by one message"],
)
async def test_a_body_that_is_too_large_is_refused_before_it_is_whole(
    messages: list[ProcessingRequest],
) -> None:
    """X5, E6: 413 at once; nothing more is read."""
    envoy = await Served().send(*messages, patient=True)
    assert envoy.error == (413, "request_too_large")


@EITHER_MODE
async def test_a_body_that_is_too_large_when_decoded_is_refused() -> None:
    """X5: a small body must not become a huge one."""
    packed = head("POST", "/v1/responses", {**JSON, "content-encoding": "gzip"})
    envoy = await Served().send(packed, body(gzip.compress(b" " * 5000), end=True))
    assert envoy.error == (413, "request_too_large")


@pytest.mark.parametrize("length", ["", "abc", "-1", "²", "1000"])
async def test_an_odd_content_length_decides_nothing(length: str) -> None:
    """What counts is what comes."""
    first = head("POST", "/v1/responses", {**JSON, "content-length": length})
    assert (await Served().send(first, body(REQUEST, end=True))).status == 200


@EITHER_MODE
async def test_a_bug_of_ours_is_a_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R15: and it is logged."""
    served = Served()

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(served.rig.responses, "create", broken)
    envoy = await served.send(CREATE, body(REQUEST, end=True))
    assert envoy.error == (500, None)
    assert "a request failed" in caplog.text


# -- what is not ours --------------------------------------------------------------------------------


async def test_a_reply_of_envoys_own_passes() -> None:
    """E1: its stream opens with response headers; bodies pass byte for byte."""
    envoy = await Served().send(
        response_head(413),
        response_body(b"too ", end=False),
        response_body(b"large", end=True),
        response_trailers(),
    )
    kinds = [message.WhichOneof("response") for message in envoy.passed]
    assert kinds == ["response_headers", "response_body", "response_body", "response_trailers"]
    echoed = [m.response_body.response.body_mutation.streamed_response for m in envoy.passed[1:3]]
    assert [(m.body, m.end_of_stream) for m in echoed] == [(b"too ", False), (b"large", True)]


async def test_a_reply_of_envoys_own_in_the_middle_of_a_body_passes() -> None:
    """E1: a timeout while the client is sending; ours would come too late."""
    served = Served()
    envoy = await served.send(
        CREATE, body(REQUEST[:5]), response_head(408), response_body(b"late", end=True)
    )
    assert [m.WhichOneof("response") for m in envoy.passed] == ["response_headers", "response_body"]
    assert envoy.status is None
    assert not served.rig.model.called.is_set()


async def test_a_stream_without_a_message_is_nothing() -> None:
    """A connection that was opened and closed."""
    envoy = await Served().send()
    assert (envoy.status, envoy.passed) == (None, [])


async def test_an_empty_message_passes() -> None:
    """Of a kind that a later Envoy may send."""
    envoy = await Served().send(ProcessingRequest())
    assert envoy.passed == []


# -- the client leaves -------------------------------------------------------------------------------


async def test_a_client_that_leaves_before_its_body_is_whole_starts_nothing() -> None:
    """Even if what came so far could be read."""
    served = Served()
    envoy = await served.send(CREATE, body(REQUEST))
    assert envoy.status is None
    assert not served.rig.model.called.is_set()
    assert await served.rig.stored() == []


async def _cancelled(served: Served, envoy: FakeEnvoy, when: asyncio.Event) -> None:
    serving = asyncio.ensure_future(served.exchanges.serve(envoy))
    async with asyncio.timeout(5):
        await when.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_client_that_leaves_while_it_sends_is_forgotten() -> None:
    """At the first await."""
    served = Served()
    envoy = FakeEnvoy(CREATE, body(b"{"), patient=True)
    await _cancelled(served, envoy, envoy.waiting)
    assert not served.rig.model.called.is_set()


@pytest.mark.parametrize("request_body", [REQUEST, STREAMED])
@pytest.mark.parametrize("where", ["load_context", "accept", "finish"])
async def test_a_client_that_leaves_while_the_store_works_loses_nothing(
    where: str, request_body: bytes
) -> None:
    """P3: before the run there is nothing to lose; after its start it goes on."""
    served = Served()
    made = (await served.send(CREATE, body(REQUEST, end=True))).json["id"]
    fields = {**json.loads(request_body), "previous_response_id": made}
    store = served.rig.store
    store.reached[where].clear()
    store.holds[where] = gate = asyncio.Event()
    envoy = FakeEnvoy(CREATE, body(json.dumps(fields).encode(), end=True), patient=True)
    await _cancelled(served, envoy, store.reached[where])
    gate.set()
    await served.rig.settled()

    statuses = [stored.status for stored in await served.rig.stored()]
    assert statuses == (["completed"] if where == "load_context" else ["completed"] * 2)


@pytest.mark.parametrize("request_body", [REQUEST, STREAMED])
async def test_a_client_that_leaves_while_the_model_talks_finds_its_response(
    request_body: bytes,
) -> None:
    """P3: stored, completed."""
    gate = asyncio.Event()
    served = Served(*HELLO[:5], Hang(gate), *HELLO[5:])
    envoy = FakeEnvoy(CREATE, body(request_body, end=True), patient=True)
    await _cancelled(served, envoy, served.rig.model.called)
    gate.set()
    await served.rig.settled()
    assert (await served.rig.the_stored()).status == "completed"


async def test_a_client_that_leaves_while_it_is_written_to_finds_its_response() -> None:
    """P3: the write never returns."""
    served = Served()
    envoy = FakeEnvoy(CREATE, body(STREAMED, end=True), patient=True)
    envoy.slow = asyncio.Event()
    await _cancelled(served, envoy, served.rig.store.reached["finish"])
    await served.rig.settled()
    assert (await served.rig.the_stored()).status == "completed"
