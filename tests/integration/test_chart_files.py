"""Files in each shape of the chart: uploads by ext_proc, downloads by the workers' HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import aiohttp
import openai
import pytest
from multidict import CIMultiDict

from extproc.http_address import TcpAddress
from tests.support.bare_envoy import ask
from tests.support.fix_stack import open_session
from tests.support.stack import Stack, eventually
from tests.support.wire import FILES, Wire

MIB = 1 << 20
ELSEWHERE = ["chart envoy", "chart istio", "chart envoyGateway"]

in_every_shape = pytest.mark.parametrize("way", ["chart gateway", *ELSEWHERE], indirect=True)
where_envoy_is_elsewhere = pytest.mark.parametrize("way", ELSEWHERE, indirect=True)


@in_every_shape
async def test_a_file_comes_back(stack: Stack, client: openai.AsyncOpenAI, wire: Wire) -> None:
    """ADR 17: whole and in parts; what is wrong with a request is told by the worker; and it goes."""
    content = os.urandom(9 * MIB)
    file = await client.files.create(file=("noise", content), purpose="user_data")
    path = f"{FILES}/{file.id}/content"

    assert (await client.files.content(file.id)).content == content
    part = await wire.ask("GET", path, headers={"range": "bytes=5-14"})
    assert (part.status, bytes(part.raw)) == (206, content[5:15])
    assert part.headers["content-range"] == f"bytes 5-14/{len(content)}"
    behind = await wire.ask("GET", path, headers={"range": f"bytes={len(content)}-"})
    assert (behind.status, behind.error["code"]) == (416, "range_not_satisfiable")
    queried = await wire.ask("GET", f"{path}?x=1")
    assert (queried.status, queried.error["param"]) == (400, "x")
    assert (await wire.ask("POST", path, json={})).status == 405
    await client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        await client.files.content(file.id)


@in_every_shape
async def test_uploads_are_streamed(stack: Stack, client: openai.AsyncOpenAI, wire: Wire) -> None:
    """E6: a worker writes what has come while the client is still sending; parts are put together."""
    content, written = os.urandom(20 * MIB), asyncio.Event()

    async def form() -> AsyncIterator[bytes]:
        yield (
            b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n'
        )
        yield content[: 19 * MIB]
        await eventually(
            lambda: any("#" in p.name for p in stack.settings.files.directory.rglob("*"))
        )
        written.set()
        yield content[19 * MIB :] + b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    sent = await wire.ask("POST", FILES, data=form(), headers=headers)
    assert (sent.status, sent.json["bytes"]) == (200, len(content))
    assert written.is_set()
    assert (await client.files.content(sent.json["id"])).content == content

    upload = await client.uploads.create(
        bytes=10, filename="parts", mime_type="text/plain", purpose="user_data"
    )
    parts = [
        (await client.uploads.parts.create(upload.id, data=data)).id
        for data in (b"01234", b"56789")
    ]
    done = await client.uploads.complete(upload.id, part_ids=parts)
    assert done.file is not None
    assert (await client.files.content(done.file.id)).content == b"0123456789"


SPOOFED = [
    CIMultiDict({"x-holdfast-tenant": "other"}),
    CIMultiDict({"X-Holdfast-Tenant": ""}),
    CIMultiDict([("x-holdfast-tenant", "other"), ("x-holdfast-tenant", "more")]),
    CIMultiDict({"x-holdfast-tenant": "other", "x-holdfast-ticket": "hf1.0123456789abcdef.AAAA"}),
]


@in_every_shape
@pytest.mark.parametrize("headers", SPOOFED, ids=["tenant", "empty", "twice", "ticket"])
async def test_headers_of_a_client_do_not_say_whose_a_file_is(
    client: openai.AsyncOpenAI, wire: Wire, headers: CIMultiDict[str]
) -> None:
    """X2: ext_proc puts its word in the place of the client's, where Envoy does not strip it before."""
    file = await client.files.create(file=("mine", b"mine"), purpose="user_data")

    seen = await wire.ask("GET", f"{FILES}/{file.id}/content", headers=headers)

    assert (seen.status, bytes(seen.raw)) == (200, b"mine")


@where_envoy_is_elsewhere
async def test_who_comes_past_ext_proc_gets_nothing(
    stack: Stack, client: openai.AsyncOpenAI
) -> None:
    """X2: at the port of downloads a tenant's name opens nothing, and health is all that there is to see."""
    file = await client.files.create(file=("mine", b"mine"), purpose="user_data")
    _socket, port = stack.settings.content_addresses(0)
    assert isinstance(port, TcpAddress)
    for headers in (
        {},
        {"x-holdfast-tenant": "default"},
        {"x-holdfast-tenant": "default", "x-holdfast-ticket": "hf1.0123456789abcdef.AAAA"},
    ):
        for path in (f"{FILES}/{file.id}/content", f"{FILES}/{file.id}", "/v1/responses"):
            seen = await ask("GET", f"http://{port}{path}", headers=headers)
            assert (seen.status, b"mine" in seen.body) == (401, False), (path, headers)
    assert (await ask("GET", f"http://{port}/health")).status == 200


async def test_another_tenant_finds_nothing(tenants_of_a_gateway: Stack) -> None:
    """X1: in a mesh, too, the same bytes as for a file that never was, whatever headers say."""
    form = aiohttp.FormData({"purpose": "user_data"})
    form.add_field("file", b"secret", filename="f")
    async with open_session(tenants_of_a_gateway.url) as session:
        wire, ann, bob = Wire(session), {"x-tenant": "ann"}, {"x-tenant": "bob"}
        file = (await wire.ask("POST", FILES, data=form, headers=ann)).json
        path, never = f"{FILES}/{file['id']}/content", f"{FILES}/{file['id'][:-1]}~/content"

        assert (await wire.ask("GET", path, headers=ann)).raw == b"secret"
        assert (await wire.ask("GET", path)).status == 401
        for headers in (bob, {**bob, "x-holdfast-tenant": "ann"}):
            seen = await wire.ask("GET", path, headers=headers)
            other = await wire.ask("GET", never, headers=headers)
            assert seen.status == other.status == 404
            assert bytes(seen.raw).replace(file["id"].encode(), b"") == bytes(other.raw).replace(
                f"{file['id'][:-1]}~".encode(), b""
            )
