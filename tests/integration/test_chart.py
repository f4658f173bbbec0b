"""What the chart runs, run: its Envoy configs in a real Envoy, its hooks against one (issue: part 5)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from extproc.envoy.config import render
from extproc.settings import Settings
from extproc.up import lifecycle
from extproc.up.envoy import find_binary
from tests.support import chart
from tests.support.bare_envoy import ask, envoy
from tests.support.replies import say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import Stack, short_directory
from tests.support.wire import Wire

DEADLINE = 30.0
# What the Secrets hold, by the variables that take it from them.
_HELD = {
    "HOLDFAST_POSTGRES__URL": "postgresql://holdfast@db/holdfast",
    "HOLDFAST_INDEX__URL": "http://milvus:19530",
}
ROOT = Path(__file__).parents[2]


def validated(config: str, directory: Path) -> None:
    """Let Envoy read a config."""
    file = directory / "envoy.yaml"
    file.write_text(config, encoding="utf-8")
    told = subprocess.run(
        [find_binary(Settings()), "--mode", "validate", "--config-path", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sidecar": {"workers": 3}, "routing": {"health_path": "/health"}},
        {
            "tenancy": {"mode": "required", "source": "jwt"},
            "jwt": {
                "issuer": "https://issuer.test",
                "audiences": ["holdfast"],
                "jwks_uri": "https://issuer.test/keys",
            },
        },
        # Refused without its address, which is a secret.
        {"index": {"kind": "milvus"}},
    ],
    ids=["defaults", "workers", "tokens", "index"],
)
def test_the_pod_writes_its_envoy_config_from_the_workers_settings(
    settings: dict[str, Any],
) -> None:
    """The init container's command, carried out: the one config, with the settings of the workers."""
    # As much as three workers may need: the chart refuses less.
    url = {"url": {"name": "stores"}}
    secrets = {"postgres": url, **({"index": url} if "index" in settings else {})}
    made = chart.manifests(
        "gateway", settings=settings, resources={"limits": {"memory": "8Gi"}}, secrets=secrets
    )
    told = chart.container(chart.pod(made), "envoy-config")
    environ = chart.variables(made, told, _HELD)
    with short_directory() as directory:
        command = [part.replace("/run/holdfast", str(directory)) for part in told["command"]]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            command,
            env={**environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        written = (directory / "envoy.yaml").read_text()

        assert written.rstrip() == render(Settings.load(None, environ)).rstrip()
        validated(written, directory)


@pytest.mark.parametrize("way", ["chart envoy", "chart istio", "chart envoyGateway"], indirect=True)
async def test_an_envoy_elsewhere_serves_responses(stack: Stack) -> None:
    """ext_proc and the model's turns over ports: streamed, stored, continued, passed through, and ready."""
    async with aiohttp.ClientSession(stack.url) as session:
        wire, model = Wire(session), stack.plays(say(text("Hel", "lo")))
        first = await wire.create(model=model, input="hi")
        second = await wire.create(
            model=model, input="and?", stream=False, previous_response_id=first.response["id"]
        )
        listed = await wire.ask("GET", "/v1/models")

        assert (first.text, second.json["status"]) == ("Hello", "completed")
        assert b"and?" in stack.asked(model)[1].body
        assert b"hi" in stack.asked(model)[1].body
        assert (await wire.get(first.response["id"])).json["output"] == first.response["output"]
        assert listed.status == 200
        assert await lifecycle.ready(stack.settings)


async def test_a_pod_that_goes_waits_for_its_clients(model: ScriptedModel) -> None:
    """E4, the preStop hook: Envoy serves on and asks to connect anew; what runs is waited for, not longer."""
    gate = asyncio.Event()
    model.script(Script(Hold(gate), *say(text("late")).steps), path="/v1/embeddings")
    with short_directory() as directory:
        async with envoy(directory, model.url) as (url, settings):
            running_one = asyncio.create_task(ask("POST", f"{url}/v1/embeddings", json={}))
            await model.next_request()

            assert await lifecycle.drain(settings, least=0, most=0.3) == 1
            draining = asyncio.create_task(lifecycle.drain(settings, least=0, most=DEADLINE))
            during = await ask("GET", f"{url}/v1/models")
            assert during.status == 200
            assert not draining.done()
            gate.set()

            assert await draining == 0
            assert (await running_one).status == 200


async def test_the_pod_shows_what_its_envoy_says(model: ScriptedModel) -> None:
    """The runbook's first command, with nothing but what the image has: Python and `holdfast`."""
    with short_directory() as directory:
        async with envoy(directory, model.url):
            told = await _holdfast("envoy", directory)
            assert told.returncode == 0, told.stderr
            assert "model::" in told.stdout
            assert "sidecar::" in told.stdout
            assert "server.state: 0" in (await _holdfast("envoy", directory, "/stats")).stdout
            assert (await _holdfast("envoy", directory, "nothing")).returncode == 1

        gone = await _holdfast("envoy", directory)
        assert gone.returncode == 1
        assert "no Envoy at" in gone.stderr


async def _holdfast(
    command: str, data_dir: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "extproc", command, *arguments],
        env={"DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


async def test_a_pod_without_workers_is_not_ready_and_without_envoy_has_no_clients() -> None:
    """The probe and the hook end, and tell the truth, whatever is there."""
    with short_directory() as directory:
        settings = Settings.load(None, {"DATA_DIR": str(directory)})

        assert not await lifecycle.ready(settings)
        assert await lifecycle.drain(settings, least=5, most=DEADLINE) == 0
