"""Makes what the chart takes from the rest of the project, so that nothing has a second copy (`make docs`).

* `files/envoy.yaml`: deploy/envoy/envoy.yaml for an Envoy in another pod; what only the chart's user knows is
  an expression of Helm's in it.
* `files/ext_proc.yaml`: the filter, its modes and the owned paths of the same config, for the meshes.
* `files/envoy_settings.yaml`: the settings that nobody but Envoy reads, which the chart refuses where it
  could not tell them.
* `files/alerts.yaml`: the alerts, as they are.
* `files/secret_settings.yaml`: which settings are secret, so that none gets into a ConfigMap.
* `values.schema.json`: the names of all settings, so that a misspelled one is refused before it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import SecretStr

from extproc.envoy import own_settings
from extproc.envoy.config import TEMPLATE, blocks, fill, values
from extproc.settings import Settings
from extproc.settings_section import Section

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "holdfast"
ENVOY, EXT_PROC = CHART / "files" / "envoy.yaml", CHART / "files" / "ext_proc.yaml"
SCHEMA = CHART / "values.schema.json"
ALERTS = CHART / "files" / "alerts.yaml"
SECRETS = CHART / "files" / "secret_settings.yaml"
ENVOY_SETTINGS = CHART / "files" / "envoy_settings.yaml"
_RULES = CHART.parents[1] / "alerts" / "holdfast.yaml"

# Expressions of Helm's in the places whose values the chart computes; each gives JSON.
EXPRESSIONS = {
    "admin_socket": "{{ .Values.envoy.adminSocket | toJson }}",
    "listen_host": "{{ .Values.listenAddress | toJson }}",
    "listen_port": "{{ .Values.envoy.port }}",
    "model_listener": (
        '{"socket_address": {"address": {{ .Values.listenAddress | toJson }}, '
        '"port_value": {{ .Values.envoy.modelPort }} }}'
    ),
    "model_discovery": '"STRICT_DNS"',
    "model_endpoints": '{{ include "holdfast.modelEndpoints" . }}',
    "sidecar_discovery": '"STRICT_DNS"',
    "sidecar_endpoints": '{{ include "holdfast.sidecarEndpoints" . }}',
    "content_discovery": '"STRICT_DNS"',
    "content_endpoints": '{{ include "holdfast.contentEndpoints" . }}',
}


def envoy_template() -> str:
    """Return the config of an Envoy elsewhere, without tenancy, as a template of Helm's."""
    filled = {name: json.dumps(value) for name, value in values(_somewhere()).items()}
    return _made("#") + fill(TEMPLATE, filled | EXPRESSIONS, blocks(_somewhere()))


def ext_proc() -> str:
    """Return the pieces that a mesh is told by a resource of its own, as YAML."""
    filled = {name: json.dumps(value) for name, value in values(_somewhere()).items()}
    config = yaml.safe_load(fill(TEMPLATE, filled, blocks(_somewhere())))
    public = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    connections = public["typed_config"]
    routes = {
        route["name"]: route
        for route in connections["route_config"]["virtual_hosts"][0]["routes"]
        if "typed_per_filter_config" in route
    }
    pieces = {
        "filter": next(each for each in connections["http_filters"] if each["name"] == "holdfast"),
        "withBody": routes["responses-with-body"]["typed_per_filter_config"],
        "withoutBody": routes["responses-without-body"]["typed_per_filter_config"],
        "paths": [
            route["match"]["path_separated_prefix"]
            for name, route in routes.items()
            if name.endswith("-without-body")
        ],
        "content": routes["files-content"]["match"]["safe_regex"]["regex"],
    }
    return _made("#") + yaml.dump(pieces, Dumper=_NoAliases, sort_keys=False, width=110)


def envoy_settings() -> str:
    """Return the names of the settings that only Envoy's process and its config read."""
    names = {"process": list(own_settings.PROCESS), "config": list(own_settings.CONFIG)}
    made = "# Made from extproc/envoy/own_settings.py by `make docs`; do not edit.\n"
    return made + yaml.dump(names, sort_keys=False)


def alerts() -> str:
    """Return the alerts without their remarks."""
    rules = yaml.safe_load(_RULES.read_text(encoding="utf-8"))
    made = "# Made from deploy/alerts/holdfast.yaml by `make docs`; do not edit.\n"
    return made + yaml.dump(rules, Dumper=_NoAliases, sort_keys=False, width=110)


def secret_settings() -> str:
    """Return the places of all secrets: `section.setting`, or `section.setting.key` in a list of objects."""
    sections = Settings.SECTIONS.items()
    places = [place for name, section in sections for place in _secrets(section, name)]
    return "# Made from the settings by `make docs`; do not edit.\n" + yaml.safe_dump(places)


def _secrets(section: type[Section], place: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        within = set(_types(field.annotation))
        if SecretStr in within:
            yield f"{place}.{name}"
        for each in within:
            if isinstance(each, type) and issubclass(each, Section):
                yield from _secrets(each, f"{place}.{name}")


def _types(annotation: Any) -> Iterator[Any]:
    """Give a type and all types that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def schema() -> str:
    """Return the schema with today's settings in it."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    properties = document["properties"]
    properties["settings"]["properties"] = {
        name: _section(section.model_fields, {}) for name, section in Settings.SECTIONS.items()
    }
    properties["secrets"]["properties"] = {
        name: _section(section.model_fields, {"$ref": "#/$defs/secret"})
        for name, section in Settings.SECTIONS.items()
    }
    return json.dumps(document, indent=2) + "\n"


def _section(fields: Any, each: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: dict(each) for name in fields},
    }


def _somewhere() -> Settings:
    return Settings.load(None, {"BACKEND_URL": "http://model.invalid"})


def _made(comment: str) -> str:
    return f"{comment} Made from deploy/envoy/envoy.yaml by `make docs`; do not edit.\n"


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    for file, made in (
        (ENVOY, envoy_template),
        (EXT_PROC, ext_proc),
        (SCHEMA, schema),
        (ALERTS, alerts),
        (SECRETS, secret_settings),
        (ENVOY_SETTINGS, envoy_settings),
    ):
        file.write_text(made(), encoding="utf-8")
