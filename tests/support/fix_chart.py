"""The shapes of the chart, installed without a cluster: real Envoys and workers run what they render."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from extproc.settings import Settings
from extproc.up import probes
from extproc.up.envoy import find_binary
from extproc.up.processes import Command, running
from extproc.up.stack import workers_alone
from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrate import migrate
from tests.support.bare_envoy import ask
from tests.support.fix_postgres import create_database
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import Stack, eventually, reserved_port, short_directory

_PORT = 9000
_NUMBERS = count(1)


class _Place:
    """Where an installation is: its directory, ports for clients and for turns, an address for workers."""

    def __init__(self, directory: Path, public: int, private: int) -> None:
        self.directory = directory
        self.public = public
        self.private = private
        # An address for this installation alone: gRPC shares the port with nobody.
        pid = os.getpid()
        self.workers = f"127.{next(_NUMBERS)}.{pid >> 8 & 255}.{pid & 255}"

    @property
    def admin(self) -> Path:
        return self.directory / "envoy-admin.sock"

    def settings(self) -> dict[str, Any]:
        ports = {
            "listen": f"{self.workers}:{_PORT}",
            "content_listen": f"{self.workers}:{_PORT + 1}",
        }
        return {
            "sidecar": {"run_dir": str(self.directory), **ports},
            "metrics": {"listen": f"unix:{self.directory}/metrics.sock"},
        }


Made = tuple[list[dict[str, Any]], str, str]
"""The manifests of a shape, a config for its Envoy, and where workers find the model."""


def _envoy_elsewhere(place: _Place, model: ScriptedModel) -> Made:
    from tests.support import chart  # not where there is no Helm

    ports = {"port": place.public, "modelPort": place.private, "adminSocket": str(place.admin)}
    made = chart.manifests(
        "envoy",
        model={"url": model.url},
        envoy={"host": "127.0.0.1", **ports},
        settings=place.settings(),
    )
    config = chart.only("ConfigMap", made, "demo-holdfast-envoy")["data"]["envoy.yaml"]
    found = chart.environment(made)["HOLDFAST_MODEL__URL"]
    return made, config.replace(chart.HOST, place.workers), found


def _istio(place: _Place, model: ScriptedModel, **settings: Any) -> Made:
    from tests.support import chart, meshes

    made = chart.manifests("istio", settings=place.settings() | settings)
    # The same gateway has another installation of the same name before it, whose workers are dead.
    staging = chart.manifests("istio", namespace="staging")
    return made, _config(place, model, {place.public: meshes.istio(made, staging)}), model.url


def _envoy_gateway(place: _Place, model: ScriptedModel, **settings: Any) -> Made:
    from tests.support import chart, meshes

    made = chart.manifests("envoyGateway", settings=place.settings() | settings)
    listeners = {
        place.public: meshes.envoy_gateway(made),
        place.private: meshes.all_to_servers(),
    }
    return made, _config(place, model, listeners), f"http://127.0.0.1:{place.private}"


def _config(place: _Place, model: ScriptedModel, listeners: dict[int, Any]) -> str:
    from tests.support import meshes

    workers, servers = (place.workers, _PORT), ("127.0.0.1", model.port)
    return json.dumps(meshes.config(listeners, workers, servers, str(place.admin)))


@asynccontextmanager
async def _installed(
    make: Callable[..., Made], model: ScriptedModel, postgres: str, **tenancy: Any
) -> AsyncIterator[Stack]:
    """An Envoy with what a shape has for it, a worker with the shape's settings, ports between them."""
    from tests.support import chart

    await migrate(postgres)
    async with AsyncExitStack() as parts:
        directory = parts.enter_context(short_directory())
        public, private = (parts.enter_context(reserved_port()) for _ in range(2))
        place = _Place(directory, public, private)
        made, config, model_url = make(place, model, **({"tenancy": tenancy} if tenancy else {}))
        file = directory / "envoy.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(config)))
        environ = {
            **chart.environment(made),
            "HOLDFAST_POSTGRES__URL": postgres,
            "HOLDFAST_SEALING__KEYS": base64.b64encode(os.urandom(32)).decode(),
            "HOLDFAST_MODEL__URL": model_url,
            "HOLDFAST_FILES__DIRECTORY": str(directory / "files"),
        }
        settings = Settings.load(None, environ)
        binary = str(find_binary(settings))
        proxy = Command(
            name="envoy",
            argv=[binary, "--config-path", str(file), "--disable-hot-restart"],
            environment=os.environ,
            is_ready=partial(probes.envoy_answers, place.admin),
        )
        said: list[str] = []
        await parts.enter_async_context(running([proxy], said.append))
        await parts.enter_async_context(workers_alone(settings, said.append, "prefixed"))
        url = f"http://127.0.0.1:{place.public}"
        await eventually(partial(_serves, url))
        yield Stack(url, settings, model, said, {})


async def _serves(url: str) -> bool:
    # Where tenants are required, nobody's question is refused: by a worker, so that it is there.
    return (await ask("GET", f"{url}/v1/responses")).status in (200, 401)


@pytest_asyncio.fixture(scope="module")
async def chart_envoy(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """The shape `envoy`: its ConfigMap."""
    async with _installed(
        _envoy_elsewhere, stage, await create_database(postgres_server)
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def chart_istio(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """The shape `istio`: its VirtualService and EnvoyFilter."""
    async with _installed(_istio, stage, await create_database(postgres_server)) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def chart_envoy_gateway(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """The shape `envoyGateway`: its HTTPRoutes and EnvoyExtensionPolicies."""
    async with _installed(_envoy_gateway, stage, await create_database(postgres_server)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", params=["istio", "envoyGateway"])
async def tenants_of_a_gateway(
    request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """A mesh that tells the tenant in the header `x-tenant`, as its filters for tokens would."""
    make = {"istio": _istio, "envoyGateway": _envoy_gateway}[request.param]
    tenancy = {
        "mode": "required",
        "source": "header",
        "header": "x-tenant",
        "header_from_gateway": True,
    }
    database = await create_database(postgres_server)
    async with _installed(make, stage, database, **tenancy) as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def chart_gateway(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[Stack]:
    """The shape `gateway`: a pod with its own Envoy."""
    from tests.support.pods import Service, pod

    database = await create_database(postgres_server)
    await migrate(database)
    async with pod(Service(), database, stage.url) as settings:
        yield Stack(f"http://127.0.0.1:{settings.listen.port}", settings, stage, [], {})
