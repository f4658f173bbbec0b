"""The rendered config in a real Envoy: accepted in all its variants, and doing what it says."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterator
from pathlib import Path

import pytest

from extproc.envoy.config import render, render_plain
from extproc.settings import Settings
from extproc.up.envoy import find_binary
from tests.support.bare_envoy import DEADLINE, ask, envoy
from tests.support.jwts import Issuer
from tests.support.scripted_model import ScriptedModel

JSON = {"content-type": "application/json"}
REQUIRED = {"HOLDFAST_TENANCY__MODE": "required"}
TOKENS = {
    **REQUIRED,
    "HOLDFAST_TENANCY__SOURCE": "jwt",
    "HOLDFAST_JWT__ISSUER": "https://issuer.test",
    "HOLDFAST_JWT__AUDIENCES": "holdfast",
}
EMBEDDINGS = {"HOLDFAST_EMBEDDINGS__SOURCE": "upstream", "HOLDFAST_EMBEDDINGS__MODEL": "bge-m3"}
FROM_HEADER = {
    **REQUIRED,
    "HOLDFAST_TENANCY__SOURCE": "header",
    "HOLDFAST_TENANCY__HEADER": "x-tenant",
}
LIMITED = {"HOLDFAST_ENVOY__RATE_LIMIT_URL": "http://limits:8081"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOLDFAST_SIDECAR__WORKERS": "8", "HOLDFAST_ENVOY__STREAM_IDLE_SECONDS": "90.5"},
        {"BACKEND_URL": "http://127.0.0.1:8000"},
        {"BACKEND_URL": "http://localhost:8000/v1"},
        {"BACKEND_URL": "http://[::1]:8000/base"},
        {"BACKEND_URL": "https://models.example.com"},
        {"BACKEND_URL": "https://models.example.com:8443/base/v1"},
        {"BACKEND_URL": "https://10.0.0.1/v1"},
        {"BACKEND_URL": "unix:/run/model.sock"},
        {"BACKEND_URL": "http://127.0.0.1:8000,http://[::1]:8001,unix:/run/model.sock"},
        {"BACKEND_URL": "http://vllm-0.vllm:8000,http://vllm-1.vllm:8000"},
        {"HOLDFAST_ROUTING__HEALTH_PATH": "/health", "HOLDFAST_ROUTING__RETRIES": "0"},
        {
            "HOLDFAST_ROUTING__PICKER_URL": "http://epp:9002",
            "HOLDFAST_ROUTING__LOAD_PERCENT": "200",
        },
        {"HOLDFAST_ROUTING__PICKER_URL": "https://10.0.0.1:9002"},
        {**EMBEDDINGS, "HOLDFAST_EMBEDDINGS__URL": "https://tei.internal:8443/base"},
        {
            **EMBEDDINGS,
            "HOLDFAST_EMBEDDINGS__URL": "unix:/run/tei.sock",
            "HOLDFAST_ROUTING__PICKER_URL": "http://epp:9002",
        },
        {"HOLDFAST_LISTEN__HOST": "0.0.0.0", "PORT": "0"},
        {"HOLDFAST_LISTEN__HOST": "::1"},
        {"HOLDFAST_ENVOY__INLINE": "true"},
        {
            "HOLDFAST_ENVOY__INLINE": "true",
            "HOLDFAST_MODEL__VIA": "request",
            "BACKEND_URL": "https://models.example.com:8443/base/v1",
        },
        {**TOKENS, "HOLDFAST_JWT__JWKS_FILE": "jwks.json"},
        {**TOKENS, "HOLDFAST_JWT__JWKS_URI": "https://issuer.test:8443/keys"},
        {**TOKENS, "HOLDFAST_JWT__JWKS_URI": "http://10.0.0.1/keys"},
        FROM_HEADER,
        {**FROM_HEADER, "HOLDFAST_TENANCY__HEADER_FROM_GATEWAY": "true"},
        {
            **REQUIRED,
            "HOLDFAST_TENANCY__SOURCE": "metadata",
            "HOLDFAST_TENANCY__METADATA_NAMESPACE": "envoy.filters.http.ext_authz",
            "HOLDFAST_TENANCY__METADATA_PATH": "a,b",
        },
        {
            **REQUIRED,
            "HOLDFAST_TENANCY__SOURCE": "attribute",
            "HOLDFAST_TENANCY__ATTRIBUTE": "connection.uri_san_peer_certificate",
        },
        {"HOLDFAST_ENVOY__ACCESS_LOG": "-"},
        {
            **LIMITED,
            "HOLDFAST_ENVOY__INLINE": "true",
            "HOLDFAST_ENVOY__ACCESS_LOG": "/run/access.log",
        },
        {**FROM_HEADER, **LIMITED},
        {**TOKENS, **LIMITED, "HOLDFAST_JWT__JWKS_FILE": "jwks.json"},
        {
            **REQUIRED,
            **LIMITED,
            "HOLDFAST_TENANCY__SOURCE": "metadata",
            "HOLDFAST_TENANCY__METADATA_NAMESPACE": "envoy.filters.http.ext_authz",
            "HOLDFAST_TENANCY__METADATA_PATH": "a,b",
        },
        {
            **REQUIRED,
            **LIMITED,
            "HOLDFAST_TENANCY__SOURCE": "attribute",
            "HOLDFAST_TENANCY__ATTRIBUTE": "connection.uri_san_peer_certificate",
        },
    ],
    ids=lambda environ: " ".join(environ.values()) or "defaults",
)
async def test_envoy_accepts_the_config(environ: dict[str, str], directory: Path) -> None:
    """`envoy --mode validate` on each kind of model server, listener and identity."""
    keys = directory / "jwks.json"
    keys.write_text(Issuer().keys)
    if "HOLDFAST_JWT__JWKS_FILE" in environ:
        environ = {**environ, "HOLDFAST_JWT__JWKS_FILE": str(keys)}
    settings = Settings.load(None, {"DATA_DIR": str(directory), **environ})

    await validate(settings, render(settings))


@pytest.mark.parametrize(
    "environ",
    [
        {"HOLDFAST_HTTP__LISTEN": "unix:/run/http.sock", "HOLDFAST_SIDECAR__WORKERS": "3"},
        {"HOLDFAST_HTTP__LISTEN": ":9000", "HOLDFAST_SIDECAR__WORKERS": "3"},
        {"HOLDFAST_HTTP__LISTEN": "[::1]:9000", "BACKEND_URL": "https://models.example.com/base"},
        {"HOLDFAST_HTTP__LISTEN": "localhost:9000", "BACKEND_URL": "http://10.0.0.1:8000"},
        {"HOLDFAST_HTTP__LISTEN": ":9000", "BACKEND_URL": "http://[::1]:1,http://[::1]:2"},
        {"HOLDFAST_HTTP__LISTEN": ":9000", "HOLDFAST_ROUTING__HEALTH_PATH": "/health"},
        {
            "HOLDFAST_HTTP__LISTEN": ":9000",
            **EMBEDDINGS,
            "HOLDFAST_EMBEDDINGS__URL": "https://tei.internal:8443/base",
        },
    ],
    ids=lambda environ: " ".join(environ.values()),
)
async def test_envoy_accepts_the_config_without_ext_proc(
    environ: dict[str, str], directory: Path
) -> None:
    """The same for Envoys before 1.37 (`HOLDFAST_ENVOY__BINARY` may name one of them)."""
    settings = Settings.load(None, {"DATA_DIR": str(directory), **environ})

    await validate(settings, render_plain(settings))


async def validate(settings: Settings, config: str) -> None:
    """Let Envoy read a config."""
    file = settings.data_dir / "envoy.yaml"
    file.write_text(config, encoding="utf-8")
    validation = await asyncio.create_subprocess_exec(
        *(str(find_binary(settings)), "--mode", "validate", "--config-path", str(file)),
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(DEADLINE):
        told, _ = await validation.communicate()

    assert validation.returncode == 0, told.decode()


async def test_without_a_sidecar_owned_routes_answer_503_in_the_shape_of_the_api(
    directory: Path, model: ScriptedModel
) -> None:
    """E5: a dead sidecar gives 503 JSON, at once, and nothing reaches the model server unstored."""
    async with envoy(directory, model.url) as (url, _):
        for method in ("POST", "GET", "DELETE", "PUT"):
            for path in (
                "/v1/responses",
                "/v1/responses/resp_1?x=y",
                "/v1//responses/a/cancel",
                "/v1/conversations",
                "/v1/conversations/conv_1/items/a?x=y",
                "/v1/connectors",
                "/v1/files",
                "/v1/files/file-1/content?x=y",
                "/v1/uploads/upload_1/parts",
                "/v1/vector_stores/vs_1/files/file-1/content",
                "/v1/connectors/conn_1/tools?x=y",
            ):
                answer = await ask(method, url + path)
                assert answer.status == 503, (method, path)
                assert answer.error["type"] == "server_error"
                assert answer.error["code"] == "sidecar_unavailable"
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["x-request-id"]

    assert model.requests == []


async def test_other_routes_pass_to_the_model_server_without_a_sidecar(
    directory: Path, model: ScriptedModel
) -> None:
    """What we do not own does not depend on us."""
    async with envoy(directory, model.url) as (url, _):
        models = await ask("GET", f"{url}/v1/models")
        other = await ask("GET", f"{url}/v1/responsesfoo?x=y")

    assert (models.status, other.status) == (200, 404)
    assert json.loads(models.body)["object"] == "list"

    assert [probe.path for probe in model.probes] == ["/v1/models", "/v1/responsesfoo?x=y"]


async def test_headers_of_ours_do_not_come_from_outside(
    directory: Path, model: ScriptedModel
) -> None:
    """X6: a client cannot say what only Envoy or the sidecar may say; its own headers pass."""
    sent = {
        "x-holdfast-tenant": "other",
        "X-Holdfast-Anything": "1",
        "x-request-id": "chosen",
        "authorization": "Bearer client",
    }
    async with envoy(directory, model.url) as (url, _):
        answer = await ask("GET", f"{url}/v1/models", headers=sent)

    headers = model.probes[0].headers
    assert not [name for name in headers if name.lower().startswith("x-holdfast-")]
    assert headers["authorization"] == "Bearer client"
    assert headers["x-request-id"] == answer.headers["x-request-id"] != "chosen"


async def test_a_path_of_the_model_url_comes_first(directory: Path, model: ScriptedModel) -> None:
    """With a base URL that ends in /v1, as most do, /v1 is not said twice."""
    async with envoy(directory, f"{model.url}/base/v1") as (url, settings):
        await ask("GET", f"{url}/v1/models?x=y")
        await ask("GET", "http://model/v1/models", settings.model.socket)

    assert [probe.path for probe in model.probes] == ["/base/v1/models?x=y", "/base/v1/models"]
    assert model.probes[0].headers["host"] == f"127.0.0.1:{model.port}"


async def test_a_model_server_that_is_not_there_gives_503_in_the_shape_of_the_api(
    directory: Path,
) -> None:
    """R15: also on routes that are not ours."""
    nowhere = f"unix:{directory}/nobody.sock"
    async with envoy(directory, nowhere) as (url, _):
        answer = await ask("POST", f"{url}/v1/chat/completions", json={})

    assert answer.status == 503
    assert answer.error["code"] == "model_unavailable"
    # Where the model server is, is nobody's business.
    assert str(directory) not in answer.error["message"]
