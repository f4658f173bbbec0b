"""`extproc.http_server`: the API over HTTP, spoken byte by byte to a listener in the process."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import affinity
from engine.ports import Reply
from extproc.admission import Admission
from extproc.http_address import HttpAddress, UnixAddress, parse_http_address
from extproc.http_server import HttpExchanges, HttpTransport
from extproc.identity import Identify, from_header, nobody_in_particular
from tests.support import replies
from tests.support.engine_rig import Rig, final
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.http_client import Client, request
from tests.support.replies import text
from tests.support.stream_rules import check_stream

HELLO = frames_of(replies.stream(text("Hel", "lo")))
REQUEST = b'{"model":"m","input":"hi"}'
STREAMED = b'{"model":"m","input":"hi","stream":true}'
UNSTORED = b'{"model":"m","input":"hi","stream":true,"store":false}'
DEADLINE = 5.0
MEGABYTE = 1 << 20


class Served:
    """An engine with fakes at its ports behind a real listener; `model` plays the steps."""

    def __init__(self, rig: Rig, transport: HttpTransport, address: Path | tuple[str, int]) -> None:
        self.rig = rig
        self.transport = transport
        self._address = address

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A connection."""
        async with asyncio.timeout(DEADLINE), Client.to(self._address) as client:
            yield client

    async def ask(self, *args: Any, **kwargs: Any) -> Any:
        """Send one request on a connection of its own; return the answer."""
        async with self.client() as client:
            return await client.ask(request(*args, **kwargs))


@asynccontextmanager
async def serving(
    *steps: Any,
    limit: int = 1000,
    silence: float = 60.0,
    address: HttpAddress | None = None,
    identify: Identify = nobody_in_particular,
) -> AsyncIterator[Served]:
    rig = Rig(FakeModel(*(steps or HELLO)))
    admission = Admission(
        body_limit=limit, forward_authorization=False, body_silence=silence, identify=identify
    )
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        path = Path(folder) / "http.sock"
        transport = HttpTransport(
            address or UnixAddress(path), HttpExchanges(rig.endpoints, admission)
        )
        await transport.start()
        try:
            yield Served(rig, transport, transport.addresses[0][:2] if address else path)
        finally:
            async with asyncio.timeout(DEADLINE):
                await transport.stop(0)
                await rig.live.drain(0)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "ERROR"]


# -- whole requests ----------------------------------------------------------------------------------


async def test_a_request_is_answered_whole() -> None:
    """R15: JSON with its length; nothing of the library's shows."""
    async with serving() as served:
        answer = await served.ask("POST", "/v1/responses", REQUEST)
    assert answer.status == 200
    assert answer.json["output"][0]["content"][0]["text"] == "Hello"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["server"] == "holdfast"
    assert int(answer.headers["content-length"]) == len(answer.body)


async def test_a_request_is_answered_by_a_stream() -> None:
    """R1-R11: and its head says that nothing on the way shall hold it back."""
    async with serving() as served:
        answer = await served.ask("POST", "/v1/responses", STREAMED)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert final(check_stream(answer.body))["status"] == "completed"


async def test_one_connection_serves_one_request_after_the_other() -> None:
    """Keep-alive: behind whole answers, streams and errors."""
    async with serving() as served, served.client() as client:
        for body, status in [(REQUEST, 200), (STREAMED, 200), (b"{", 400), (REQUEST, 200)]:
            assert (await client.ask(request("POST", "/v1/responses", body))).status == status
        made = (await client.ask(request("POST", "/v1/responses", REQUEST))).json["id"]
        for method, status in [("GET", 200), ("PUT", 405), ("DELETE", 200), ("GET", 404)]:
            assert (await client.ask(request(method, f"/v1/responses/{made}"))).status == status


async def test_requests_that_come_together_are_answered_in_order() -> None:
    """Pipelining: none is lost."""
    async with serving() as served, served.client() as client:
        many = [json.dumps({"model": f"m{n}", "input": "hi"}).encode() for n in range(5)]
        await client.send(b"".join(request("POST", "/v1/responses", body) for body in many))
        models = [(await client.answer()).json["model"] for _ in many]
    assert models == ["m0", "m1", "m2", "m3", "m4"]


async def test_an_old_client_gets_its_stream_up_to_the_end_of_the_connection() -> None:
    """HTTP/1.0 knows no chunks."""
    async with serving() as served, served.client() as client:
        await client.send(
            request("POST", "/v1/responses", STREAMED).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        )
        answer = await client.answer()
    assert "transfer-encoding" not in answer.headers
    assert final(check_stream(answer.body))["status"] == "completed"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "gzip, identity"])
async def test_a_compressed_body_is_decoded(encoding: str) -> None:
    """Some clients compress what they send."""
    packed = gzip.compress(REQUEST)
    async with serving() as served:
        answer = await served.ask("POST", "/v1/responses", packed, {"content-encoding": encoding})
    assert answer.status == 200


async def test_a_small_body_that_holds_millions_of_values_is_refused() -> None:
    """X5: 33 KB of gzip, of which a decoder would make 800 MB."""
    body = b'{"model":"m","input":"hi","client_metadata":{"a":[%b[]]}}' % (b"[]," * 10_000_000)
    async with serving(limit=len(body)) as served:
        packed = gzip.compress(body)
        answer = await served.ask("POST", "/v1/responses", packed, {"content-encoding": "gzip"})
    assert answer.status == 400
    error = answer.json["error"]
    assert (error["param"], error["code"]) == ("client_metadata", "too_many_values")
    assert "1000000" in error["message"]


async def test_a_body_may_come_in_chunks_and_end_with_trailers() -> None:
    """E1: byte by byte."""
    head = request("POST", "/v1/responses", None, {"transfer-encoding": "chunked"})
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in REQUEST)
    async with serving() as served, served.client() as client:
        for data in (head, chunks, b"0\r\nx-checksum: 1\r\n\r\n"):
            await client.send(data)
        assert (await client.answer()).status == 200
        assert (await client.ask(request("POST", "/v1/responses", REQUEST))).status == 200


async def test_a_client_that_waits_for_permission_to_send_gets_it() -> None:
    """curl does so for bodies above a megabyte; without permission nothing is read."""
    head = {"expect": "100-continue", "content-length": str(len(REQUEST))}
    async with serving() as served, served.client() as client:
        await client.send(request("POST", "/v1/responses", None, head))
        assert await client.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await client.line() == b"\r\n"
        await client.send(REQUEST)
        assert (await client.answer()).status == 200
        refused = {**head, "content-length": "1001"}
        await client.send(request("POST", "/v1/responses", None, refused))
        assert (await client.answer()).status == 413


async def test_every_answer_has_its_requests_id_and_the_model_hears_of_it() -> None:
    """The caller's own, or a new one where there is none that could be logged."""
    async with serving() as served:
        ids = []
        for given in ({"x-request-id": "req-7"}, {}, {"x-request-id": "a b"}):
            answer = await served.ask("POST", "/v1/responses", REQUEST, given)
            ids.append(answer.headers["x-request-id"])
        heard = [headers["x-request-id"] for headers in served.rig.model.headers]
    assert ids == heard
    assert ids[0] == "req-7"
    assert len(set(ids[1:])) == 2
    assert all(len(made) == 32 for made in ids[1:])


async def test_chosen_headers_reach_the_model_and_no_others() -> None:
    """X4: authorization only where a setting says so."""
    given = {"x-request-id": "r", "traceparent": "t", "authorization": "a", "cookie": "c"}
    async with serving() as served:
        await served.ask("POST", "/v1/responses", REQUEST, given)
        [sent] = served.rig.model.headers
        assert {**sent, affinity.HEADER: ""} == {
            "x-request-id": "r", "traceparent": "t", affinity.HEADER: ""
        }  # fmt: skip


# -- whose it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "given"),
    [
        ("POST", "/v1/responses", {"content-length": "9" * 9, "content-type": "text/plain"}),
        ("POST", "/v1/responses", {"content-length": "9", "expect": "100-continue"}),
        ("POST", "/v1/responses", {"transfer-encoding": "chunked"}),
        ("GET", "/v1/responses/resp_x", {}),
        ("PUT", "/v1/responses", {}),
        ("GET", "/v1/unknown", {}),
        ("GET", "/health/", {}),
    ],
)
async def test_a_request_without_an_identity_is_refused_at_its_head(
    method: str, target: str, given: dict[str, str]
) -> None:
    """X2: before its body, its media type and its path are looked at; what it still sends is dropped."""
    async with serving(identify=from_header("x-tenant")) as served, served.client() as client:
        await client.send(request(method, target, None, given))
        answer = await client.answer()
        assert (answer.status, answer.error["code"]) == (401, "missing_identity")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert not served.rig.model.called.is_set()
        if given:
            assert await client.ended()


async def test_a_response_belongs_to_the_tenant_of_its_header() -> None:
    """X1, X2: whatever the body says; two headers, and one that says two names, are nobody's."""
    body = b'{"model":"m","input":"hi","user":"other","metadata":{"x-tenant":"other"}}'
    async with serving(identify=from_header("x-tenant")) as served:
        made = await served.ask("POST", "/v1/responses", body, {"X-Tenant": "acme"})
        path = f"/v1/responses/{made.json['id']}"
        for given, status in (
            ({"x-tenant": "acme"}, 200),
            ({"x-tenant": "other"}, 404),
            ({"x-tenant": "default"}, 404),
            ({"x-tenant": "acme", "X-Tenant": "acme"}, 401),
            ({"x-tenant": "acme, acme"}, 401),
        ):
            assert (await served.ask("GET", path, None, given)).status == status


async def test_trailers_do_not_say_whose_it_is() -> None:
    """X2: they come when everything was decided."""
    head = request("POST", "/v1/responses", None, {"transfer-encoding": "chunked"})
    said = b"%x\r\n%b\r\n0\r\nx-tenant: acme\r\n\r\n" % (len(REQUEST), REQUEST)
    async with serving(identify=from_header("x-tenant")) as served, served.client() as client:
        assert (await client.ask(head + said)).status == 401


async def test_headers_for_us_are_heard() -> None:
    """P3: what a client's leaving does, and that it asks again."""
    never = {"holdfast-on-disconnect": "perhaps"}
    key = {"idempotency-key": "k"}
    async with serving() as served:
        refused = await served.ask("POST", "/v1/responses", REQUEST, never)
        first, again = [await served.ask("POST", "/v1/responses", REQUEST, key) for _ in range(2)]
    assert (refused.status, refused.error["param"]) == (400, "holdfast-on-disconnect")
    assert first.json == again.json
    assert len(served.rig.model.headers) == 1


# -- requests that are refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status", "code"),
    [
        ("GET", "/", None, {}, 404, "unknown_url"),
        ("GET", "/v1/models", None, {}, 404, "unknown_url"),
        ("GET", "/v1/responses/resp_x", None, {}, 404, "not_found"),
        ("PUT", "/v1/responses", REQUEST, {}, 405, "method_not_allowed"),
        ("OPTIONS", "/v1/responses", None, {}, 405, "method_not_allowed"),
        ("POST", "/v1/responses", None, {}, 400, "invalid_json"),
        ("POST", "/v1/responses", b"", {"transfer-encoding": "chunked"}, 400, "invalid_json"),
        ("POST", "/v1/responses", b"{", {}, 400, "invalid_json"),
        ("POST", "/v1/responses", b"x", {"content-type": "text/plain"}, 415, None),
        ("POST", "/v1/responses", b"x", {"content-encoding": "rot13"}, 415, None),
        (
            "POST",
            "/v1/responses",
            gzip.compress(b" " * 5000),
            {"content-encoding": "gzip"},
            413,
            "request_too_large",
        ),
        ("POST", "/v1/responses", b" " * 1001, {}, 413, "request_too_large"),
    ],
)
async def test_a_wrong_request_is_refused(
    method: str,
    target: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    """R15: with the error of the API; the model is not called."""
    async with serving() as served:
        answer = await served.ask(method, target, body, headers)
        assert not served.rig.model.called.is_set()
    assert answer.status == status
    assert answer.error["code"] == (code or "unsupported_media_type")
    assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert "POST" in answer.headers["allow"]


async def test_a_head_request_gets_no_body() -> None:
    """HTTP: and its connection goes on."""
    async with serving() as served, served.client() as client:
        await client.send(request("HEAD", "/v1/responses"))
        answer = await client.answer(without_body=True)
        assert (answer.status, answer.headers["allow"]) == (405, "POST, GET")
        assert (await client.ask(request("POST", "/v1/responses", REQUEST))).status == 200


async def test_a_body_without_end_is_refused_in_the_middle_and_not_read_for_long() -> None:
    """X5, E6: 413, and the connection is closed."""
    head = request("POST", "/v1/responses", None, {"transfer-encoding": "chunked"})
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    async with serving() as served, served.client() as client:
        await client.send(head)
        try:
            while sent < 500 * MEGABYTE:
                await client.send(chunk)
                sent += len(chunk)
        except ConnectionError:
            pass
    assert sent < 50 * MEGABYTE


async def test_a_refused_client_that_is_still_sending_sees_its_answer() -> None:
    """The rest of a body that is only a little too large is read, then the connection is closed."""
    async with serving() as served:
        answer = await served.ask("POST", "/v1/responses", b" " * 500_000)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_a_client_that_stops_in_its_body_is_told_so() -> None:
    """X5: 408 after the settable silence."""
    async with serving(silence=0.05) as served, served.client() as client:
        await client.send(request("POST", "/v1/responses", b"{", {"content-length": "26"}))
        answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01 hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
)
async def test_what_is_no_http_is_an_error_of_the_api(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """R15: 400 and the end of the connection; strangers fill no log."""
    async with serving() as served, served.client() as client:
        await client.send(data)
        answer = await client.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_http")
        assert await client.ended()
    assert not errors(caplog)


async def test_a_broken_body_is_an_error_of_the_api() -> None:
    """R15: a chunk whose size is no number."""
    head = request("POST", "/v1/responses", None, {"transfer-encoding": "chunked"})
    async with serving() as served, served.client() as client:
        await client.send(head + b"zz\r\n")
        assert (await client.answer()).status == 400


# -- slow and leaving clients ------------------------------------------------------------------------


class Writing:
    """Stands in for the engine: writes a stream as fast as its client takes it, `written` in MiB."""

    def __init__(self) -> None:
        self.written = 0
        self.stopped = asyncio.Event()

    async def create(
        self, _caller: object, _body: bytes, _query: str, reply: Reply, *, model: object
    ) -> None:
        await reply.open()
        try:
            while self.written < 1000:
                await reply.write(b": " + b"x" * MEGABYTE + b"\n\n")
                self.written += 1
        finally:
            self.stopped.set()

    async def held(self) -> int:
        """Return how much was written once nothing more is."""
        written = -1
        while written != self.written:
            written = self.written
            for _ in range(1000):
                await asyncio.sleep(0)
        return written


@asynccontextmanager
async def writing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Served, Writing]]:
    engine = Writing()
    async with serving() as served:
        monkeypatch.setattr(served.rig.responses, "create", engine.create)
        yield served, engine


async def test_a_slow_reader_holds_back_its_own_stream_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E6: no more is written than its socket takes; others are served meanwhile."""
    async with writing(monkeypatch) as (served, engine), served.client() as slow:
        await slow.send(request("POST", "/v1/responses", STREAMED))
        await slow.line()
        held = await engine.held()
        for _ in range(20):
            assert (await served.ask("GET", "/v1/responses/resp_x")).status == 404
        assert engine.written == held < 20


async def test_a_slow_reader_that_leaves_is_noticed_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: also while a write waits for it."""
    async with writing(monkeypatch) as (served, engine):
        async with served.client() as client:
            await client.send(request("POST", "/v1/responses", STREAMED))
            await client.line()
            await engine.held()
        async with asyncio.timeout(DEADLINE):
            await engine.stopped.wait()
    assert not errors(caplog)


@pytest.mark.parametrize("begun", [True, False], ids=["streaming", "waiting"])
async def test_a_client_that_leaves_is_noticed_at_once(
    begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """P3, P5: what nobody can read is not generated; nothing is logged."""
    never = asyncio.Event()
    async with serving(*([*HELLO[:5]] if begun else []), Hang(never)) as served:
        async with served.client() as client:
            await client.send(request("POST", "/v1/responses", UNSTORED))
            if begun:
                await client.until(b"output_text.delta")
            else:
                await served.rig.model.called.wait()
            assert not served.rig.model.aborted.is_set()
        async with asyncio.timeout(DEADLINE):
            await served.rig.model.aborted.wait()
    assert not errors(caplog)


# -- health and the end ------------------------------------------------------------------------------


async def test_health_tells_of_draining_and_connections_are_let_go() -> None:
    """E4: 503 for health checks, `connection: close` for clients, and everything is still served."""
    async with serving() as served, served.client() as client:
        healthy = await client.ask(request("GET", "/health"))
        assert (healthy.status, healthy.json) == (200, {"status": "serving"})
        await served.transport.drain()
        answer = await client.ask(request("POST", "/v1/responses", REQUEST))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended()
        draining = await served.ask("GET", "/health")
        assert (draining.status, draining.json) == (503, {"status": "draining"})


async def test_a_stop_lets_running_streams_end() -> None:
    """E4: new connections are refused, idle ones closed, and the stream ends as if nothing had been."""
    gate = asyncio.Event()
    async with (
        serving(*HELLO[:5], Hang(gate), *HELLO[5:]) as served,
        served.client() as idle,
        served.client() as client,
    ):
        await idle.ask(request("GET", "/health"))
        await client.send(request("POST", "/v1/responses", STREAMED))
        await client.until(b"output_text.delta")
        stopping = asyncio.create_task(served.transport.stop(60))
        assert await idle.ended()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await served.ask("GET", "/health")
        gate.set()
        answer = await client.answer()
        assert final(check_stream(answer.body))["status"] == "completed"
        await stopping


async def test_a_second_stop_shortens_the_first() -> None:
    """E4: what does not end is cut."""
    async with serving(*HELLO[:5], Hang(asyncio.Event())) as served, served.client() as client:
        await client.send(request("POST", "/v1/responses", STREAMED))
        await client.until(b"output_text.delta")
        first = asyncio.create_task(served.transport.stop(60))
        await served.transport.stop(0)
        await first
        assert await client.ended()


async def test_it_listens_on_a_port_too() -> None:
    """`:PORT` is for this machine alone."""
    async with serving(address=parse_http_address(":0")) as served:
        [address] = served.transport.addresses
        assert address[0] == "127.0.0.1"
        assert (await served.ask("POST", "/v1/responses", REQUEST)).status == 200


async def test_a_bug_of_ours_is_a_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """R15: and it is logged."""
    async with serving() as served:

        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(served.rig.responses, "create", broken)
        answer = await served.ask("POST", "/v1/responses", REQUEST)
    assert (answer.status, answer.error["code"]) == (500, None)
    assert "a request failed" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","input":[{"type":"mcp_call","server_label":"s","name":"f","arguments":"{}",'
        b'"error":%b}]}',
        b'{"model":"m","input":[{"type":"mcp_list_tools","server_label":"s","tools":[{"name":"f",'
        b'"input_schema":%b}]}]}',
        b'{"model":"m","input":"x","tools":[{"type":"function","name":"f","parameters":%b}]}',
        b'{"model":"m","input":"x","chat_template_kwargs":%b}',
    ],
)
async def test_no_nesting_of_a_request_is_a_failure_of_ours(body: bytes) -> None:
    """H1: around the depth at which Python gives up, which depends on where it is asked."""
    async with serving(limit=MEGABYTE) as served, served.client() as client:
        for levels in range(940, 1000):
            value = b'{"a":' * levels + b"1" + b"}" * levels
            answer = await client.ask(request("POST", "/v1/responses", body % value))
            assert answer.status == 400
            assert answer.json["error"]["code"] == "invalid_json"
