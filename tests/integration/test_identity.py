"""Whose a request is, from a real Envoy: each source, and what a client can try against it (X2).

The worker here only answers with the tenant for which the engine would work. What an operator adds to
Envoy's config is taken from docs/tenancy.md, so that the examples there are known to work.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from engine.answers import Answer
from engine.intake import Caller
from engine.ports import Reply
from extproc.app import transport_of
from extproc.model_client import NoModelClient
from extproc.settings import Settings
from extproc.up.envoy import envoy_command, public_port
from extproc.up.processes import running
from tests.support.certificates import Authority
from tests.support.jwts import AUDIENCE, Issuer
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import eventually, short_directory
from tests.support.wire import DEADLINE

DOCUMENT = Path(__file__).parents[2] / "docs" / "tenancy.md"
OWNED = "/v1/responses/x"
Edit = Callable[[str], str]

HEADER = {"MODE": "required", "SOURCE": "header", "HEADER": "x-tenant"}
GATEWAY = {**HEADER, "HEADER_FROM_GATEWAY": "true"}
METADATA = {
    "MODE": "required",
    "SOURCE": "metadata",
    "METADATA_NAMESPACE": "envoy.filters.http.ext_authz",
    "METADATA_PATH": "x-tenant",
}
ATTRIBUTE = {
    "MODE": "required",
    "SOURCE": "attribute",
    "ATTRIBUTE": "connection.uri_san_peer_certificate",
}


BEFORE_WORKERS = pytest.mark.parametrize("plain", [False, True], ids=["ext_proc", "http"])
"""Both of our configs: with ext_proc, and for workers that are an ordinary HTTP cluster."""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    with short_directory() as path:
        yield path


def example(name: str) -> str:
    """Return a block of YAML from the document, by the comment that it begins with."""
    (block,) = re.findall(rf"```yaml\n# {name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(block)


def indented(text: str, spaces: int) -> str:
    return textwrap.indent(text, " " * spaces)


@dataclass
class Told:
    """What an Envoy with a worker behind it says: the tenant, or the code of the error."""

    url: str

    async def tenant(
        self,
        headers: Mapping[str, str] | None = None,
        path: str = OWNED,
        tls: ssl.SSLContext | bool = True,
    ) -> str:
        timeout = aiohttp.ClientTimeout(DEADLINE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self.url + path, headers=headers, ssl=tls) as answer,
        ):
            return what(answer.status, await answer.read())

    async def spoken(self, data: str) -> str:
        """Send bytes, written as latin-1, on a connection of their own."""
        port = int(self.url.rpartition(":")[2])
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(data.encode("latin-1"))
                await writer.drain()
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
                await writer.wait_closed()
        return what(int(head.split()[1]), body)

    async def http2(self, *headers: str) -> str:
        """Ask by HTTP/2, with header lines."""
        given = [part for header in headers for part in ("-H", header)]
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--http2-prior-knowledge", "-w", "\n%{http_code}"),
            *(*given, self.url + OWNED),
            stdout=PIPE,
        )
        async with asyncio.timeout(DEADLINE):
            output, _ = await process.communicate()
        body, _, status = output.rpartition(b"\n")
        return what(int(status), body)


def what(status: int, body: bytes) -> str:
    found = json.loads(body)
    if status == 200:
        return str(found.get("tenant", "the model server"))
    error = found["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return f"{status} {error['code']}"


class Teller:
    """Stands in the engine's place: answers with the tenant of whom it is asked for."""

    async def create(
        self, caller: Caller, body: bytes, query: str, reply: Reply, *, model: object = None
    ) -> None:
        """`POST /v1/responses`."""
        await self._tell(caller, reply)

    async def retrieve(self, caller: Caller, wanted: str, query: str, reply: Reply) -> None:
        """`GET /v1/responses/{id}`."""
        await self._tell(caller, reply)

    async def _tell(self, caller: Caller, reply: Reply) -> None:
        await reply.answer(Answer(200, json.dumps({"tenant": caller.tenant}).encode()))


class Asked(NamedTuple):
    """All that is asked of the engine here."""

    responses: Teller


@asynccontextmanager
async def told(
    directory: Path,
    model: ScriptedModel,
    tenancy: Mapping[str, str],
    jwt: Mapping[str, str] | None = None,
    edit: Edit = str,
    scheme: str = "http",
    environ: Mapping[str, str] | None = None,
    plain: bool = False,
) -> AsyncIterator[Told]:
    """Run an Envoy with these settings, its config edited, before a worker that tells the tenant.

    `plain`: without ext_proc.
    """
    named = {f"HOLDFAST_TENANCY__{name}": value for name, value in tenancy.items()}
    named |= {f"HOLDFAST_JWT__{name}": value for name, value in (jwt or {}).items()}
    base = {"DATA_DIR": str(directory), "PORT": "0", "BACKEND_URL": model.url}
    if plain:
        named["HOLDFAST_HTTP__LISTEN"] = f"unix:{directory}/http.sock"
        named["HOLDFAST_ENVOY__BINARY"] = os.environ.get("HOLDFAST_TEST_ENVOY_BIN", "")
    settings = Settings.load(None, {**base, **named, **(environ or {})})
    settings.sidecar.run_dir.mkdir()
    endpoints: Any = Asked(Teller())
    worker = transport_of(settings, 0, endpoints, NoModelClient())
    await worker.start()
    try:
        envoy = envoy_command(settings, os.environ, plain=plain)
        config = settings.sidecar.run_dir / "envoy.yaml"
        config.write_text(edit(config.read_text()))
        async with running([envoy], lambda line: None):
            yield Told(f"{scheme}://127.0.0.1:{await public_port(settings)}")
    finally:
        await worker.stop(0)


async def settled(
    told: Told,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | bool = True,
) -> None:
    """Wait until the worker takes requests: Envoy's threads learn of its health at their own time."""

    async def answered() -> bool:
        return not (await told.tenant(headers, tls=tls)).startswith("503")

    await eventually(answered)


# -- a gateway's header --------------------------------------------------------------------------------

REQUEST = f"GET {OWNED} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
POST = (
    "POST /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
)


@BEFORE_WORKERS
async def test_a_gateways_header_is_the_tenant(
    directory: Path, model: ScriptedModel, plain: bool
) -> None:
    """X2: `header_from_gateway`; twice, empty, or under a similar name it is nobody's."""
    async with told(directory, model, GATEWAY, plain=plain) as envoy:
        await settled(envoy, {"x-tenant": "acme"})
        assert await envoy.tenant({"x-tenant": "acme"}) == "acme"
        assert await envoy.tenant({"X-Tenant": " Ac me "}) == "Ac me"
        assert await envoy.tenant({"x-tenant": "acme"}, "/v1/models") == "the model server"
        for path in (OWNED, "/v1/models"):
            for headers in (
                {},
                {"x-tenant": ""},
                {"x_tenant": "acme"},
                {"x-holdfast-tenant": "acme"},
            ):
                assert await envoy.tenant(headers, path) == "401 missing_identity"
        for lines in (
            "x-tenant: a\r\nx-tenant: b\r\n",
            "x-tenant: a\r\nX-TENANT: a\r\n",
            "x-tenant: a,b\r\n",
            "x-tenant:\r\nx-tenant: b\r\n",
            "x-tenant: a\xff\r\n",
        ):
            assert await envoy.spoken(f"{REQUEST}{lines}\r\n") == "401 missing_identity"
        assert await envoy.http2("x-tenant: a") == "a"
        assert await envoy.http2("x-tenant: a", "X-Tenant: a") == "401 missing_identity"
        assert [probe.path for probe in model.probes] == ["/v1/models"]


@BEFORE_WORKERS
async def test_what_is_not_the_head_says_nothing(
    directory: Path, model: ScriptedModel, plain: bool
) -> None:
    """X2: trailers, and a header that `Connection` declares to be between two hops."""
    async with told(directory, model, GATEWAY, plain=plain) as envoy:
        await settled(envoy, {"x-tenant": "acme"})
        trailers = "trailer: x-tenant\r\n\r\n2\r\n{}\r\n0\r\nx-tenant: other\r\n\r\n"
        assert await envoy.spoken(f"{POST}{trailers}") == "401 missing_identity"
        assert await envoy.spoken(f"{POST}x-tenant: acme\r\n{trailers}") == "acme"
        hop = "connection: x-tenant\r\n"
        assert await envoy.spoken(f"{REQUEST}{hop}x-tenant: acme\r\n\r\n") == (
            "401 missing_identity"
        )


# -- a header or metadata of a filter ------------------------------------------------------------------


@asynccontextmanager
async def authorization() -> AsyncIterator[int]:
    """An authorization service: the key `key-of-NAME` is NAME's, `nobody` is let in as nobody."""

    async def check(request: web.Request) -> web.Response:
        kind, _, name = request.headers.get("authorization", "").partition("key-of-")
        if kind != "Bearer ":
            return web.Response(status=403)
        return web.Response(headers={} if name == "nobody" else {"x-tenant": name})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", check)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def with_authorization(port: int) -> Edit:
    """Return the edit that docs/tenancy.md describes."""

    def edit(config: str) -> str:
        rbac = " " * 18 + "- name: envoy.filters.http.rbac\n"
        assert config.count(rbac) == 1
        config = config.replace(rbac, indented(example("filter"), 18) + rbac)
        cluster = example("cluster").replace("9191", str(port))
        return config.replace("  clusters:\n", "  clusters:\n" + indented(cluster, 4))

    return edit


@pytest.mark.parametrize(
    ("tenancy", "plain"),
    [(HEADER, False), (METADATA, False), (HEADER, True)],
    ids=["header", "metadata", "header-http"],
)
async def test_what_a_filter_says_is_the_tenant(
    directory: Path, model: ScriptedModel, tenancy: Mapping[str, str], plain: bool
) -> None:
    """X2: ext_authz, as a header and as metadata; a client's own header is removed before."""
    acme, nobody = ({"authorization": f"Bearer key-of-{name}"} for name in ("acme", "nobody"))
    async with (
        authorization() as port,
        told(directory, model, tenancy, edit=with_authorization(port), plain=plain) as envoy,
    ):
        await settled(envoy, acme)
        for path, seen in ((OWNED, "acme"), ("/v1/models", "the model server")):
            assert await envoy.tenant(acme, path) == seen
            assert await envoy.tenant({**acme, "x-tenant": "other"}, path) == seen
            for own in ("x-tenant", "X-TENANT", "x_tenant", "x-holdfast-tenant"):
                assert await envoy.tenant({**nobody, own: "other"}, path) == "401 missing_identity"
        twice = "x-tenant: a\r\nX-Tenant: b\r\n"
        key = "authorization: Bearer key-of-"
        assert await envoy.spoken(f"{REQUEST}{twice}{key}acme\r\n\r\n") == "acme"
        assert await envoy.spoken(f"{REQUEST}{twice}{key}nobody\r\n\r\n") == "401 missing_identity"
        # A header that `Connection` names is dropped when it comes in, not when a filter sets it.
        hop = "connection: x-tenant\r\n"
        for name, seen in (("acme", "acme"), ("nobody", "401 missing_identity")):
            assert await envoy.spoken(f"{REQUEST}{hop}{twice}{key}{name}\r\n\r\n") == seen
    for probe in model.probes:
        assert probe.headers.getall("x-tenant") == ["acme"]


@BEFORE_WORKERS
async def test_a_header_that_nothing_sets_lets_nobody_in(
    directory: Path, model: ScriptedModel, plain: bool
) -> None:
    """X2: a config whose filter was forgotten fails closed, whatever clients send."""
    async with told(directory, model, HEADER, plain=plain) as envoy:
        for path in (OWNED, "/v1/models", "/"):
            assert await envoy.tenant({"x-tenant": "acme"}, path) == "401 missing_identity"
    assert model.probes == []


# -- a client's certificate ----------------------------------------------------------------------------


async def test_the_name_in_a_certificate_is_the_tenant(
    directory: Path, model: ScriptedModel
) -> None:
    """X2: mTLS; the first URI counts, one of a certificate that Envoy does not trust never does."""
    authority = Authority(directory)
    certificate, key = authority.server()
    block = example("transport socket")
    for name, file in (("server.pem", certificate), ("server.key", key)):
        block = block.replace(f"/etc/holdfast/{name}", str(file))
    block = block.replace("/etc/holdfast/clients-ca.pem", str(authority.file))

    def edit(config: str) -> str:
        chain = "      filter_chains:\n        - filters:\n"
        secured = (
            "      filter_chains:\n        -" + indented(block, 10)[9:] + "          filters:\n"
        )
        return config.replace(chain, secured, 1)

    async with told(directory, model, ATTRIBUTE, edit=edit, scheme="https") as envoy:
        acme = authority.client("one", "spiffe://acme/app")
        await settled(envoy, tls=acme)
        assert await envoy.tenant(tls=acme) == "spiffe://acme/app"
        assert await envoy.tenant(path="/v1/models", tls=acme) == "the model server"
        assert await envoy.tenant(tls=authority.client("two", "spiffe://b", "spiffe://a")) == (
            "spiffe://b"
        )
        pretended = {"x-forwarded-client-cert": "URI=spiffe://acme/app"}
        nameless = authority.client("nameless")
        for path in (OWNED, "/v1/models"):
            assert await envoy.tenant(pretended, path, nameless) == "401 missing_identity"
        with pytest.raises(aiohttp.ClientError):
            await envoy.tenant(tls=authority.client(None))
        # The same names from another authority; the client trusts our server all the same.
        (directory / "other").mkdir()
        forged = authority.client(None)
        forged.load_cert_chain(*Authority(directory / "other").issue("one"))
        with pytest.raises(aiohttp.ClientError):
            await envoy.tenant(tls=forged)


# -- tokens whose keys are on another server -----------------------------------------------------------


@asynccontextmanager
async def key_server(issuer: Issuer, status: int) -> AsyncIterator[str]:
    """An identity provider's key set; gives its URL."""

    async def keys(_request: web.Request) -> web.Response:
        return web.Response(text=issuer.keys, content_type="application/json", status=status)

    app = web.Application()
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    finally:
        await runner.cleanup()


def tokens(issuer: Issuer, url: str) -> dict[str, str]:
    return {
        "ISSUER": issuer.name,
        "AUDIENCES": AUDIENCE,
        "JWKS_URI": url,
        "CLAIM": "org,https://acme.com/id",
    }


JWT = {"MODE": "required", "SOURCE": "jwt"}


async def test_keys_are_fetched_and_a_claim_may_be_within_another(
    directory: Path, model: ScriptedModel
) -> None:
    """X2: a claim of another type is no tenant, on any route."""
    issuer = Issuer()

    def bearer(claim: object) -> dict[str, str]:
        token = issuer.token("unused", org={"https://acme.com/id": claim})
        return {"authorization": f"Bearer {token}"}

    async with (
        key_server(issuer, 200) as url,
        told(directory, model, JWT, tokens(issuer, url)) as envoy,
    ):
        await settled(envoy, bearer("acme"))
        assert await envoy.tenant(bearer("acme")) == "acme"
        assert await envoy.tenant(bearer("acme"), "/v1/models") == "the model server"
        for path in (OWNED, "/v1/models"):
            for claim in (7, True, None, "", ["acme"], {"id": "acme"}):
                assert await envoy.tenant(bearer(claim), path) == "401 missing_identity"
            assert await envoy.tenant({}, path) == "401 missing_identity"
        # What is no path at all matches no rule of a filter, and gets past none.
        whole = "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        assert await envoy.spoken(whole) == "404 absolute_path_rejected"
    (probe,) = model.probes
    assert "authorization" not in probe.headers


async def test_a_token_is_forwarded_where_a_setting_says_so(
    directory: Path, model: ScriptedModel
) -> None:
    """X4: `model.forward_authorization`, on the model's own routes too."""
    issuer = Issuer()
    token = issuer.token("unused", org={"https://acme.com/id": "acme"})
    forward = {"HOLDFAST_MODEL__FORWARD_AUTHORIZATION": "true"}
    async with (
        key_server(issuer, 200) as url,
        told(directory, model, JWT, tokens(issuer, url), environ=forward) as envoy,
    ):
        headers = {"authorization": f"Bearer {token}"}
        assert await envoy.tenant(headers, "/v1/models") == "the model server"
    assert model.probes[0].headers.getall("authorization") == [f"Bearer {token}"]


async def test_without_keys_nobody_is_let_in_and_nobody_is_blamed(
    directory: Path, model: ScriptedModel
) -> None:
    """X2, R15: an identity provider that is away is a 503, not a wrong token."""
    issuer = Issuer()
    headers = {"authorization": f"Bearer {issuer.token('acme')}"}
    async with (
        key_server(issuer, 500) as url,
        told(directory, model, JWT, tokens(issuer, url)) as envoy,
    ):
        for path in (OWNED, "/v1/models"):
            assert await envoy.tenant(headers, path) == "503 keys_unavailable"
    assert model.probes == []
