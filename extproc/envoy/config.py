"""Renders the one Envoy config, deploy/envoy/envoy.yaml, from the settings.

And its stand-in without ext_proc, plain.yaml, for Envoys older than 1.37.

Every placeholder of the template is filled with JSON, which is YAML's flow syntax, so that no value
can break out of its place. Blocks that the settings do not ask for are left out. The template is
beside the packages, in a checkout and in a wheel alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import extproc
from extproc.envoy import identity, model_cluster, rate_limit
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.envoy.own_settings import problems_without_ext_proc
from extproc.envoy.parts import endpoint_of, pipe, seconds, transport_socket
from extproc.http_address import HttpAddress, TcpAddress, UnixAddress
from extproc.settings import Settings, SettingsError

_TEMPLATES = Path(extproc.__file__).parent.parent / "deploy" / "envoy"
TEMPLATE = _TEMPLATES / "envoy.yaml"
PLAIN_TEMPLATE = _TEMPLATES / "plain.yaml"

# `# <if x>` … `# </if x>`, each on a line of its own.
_BLOCK = re.compile(
    r"^ *# <if (?P<name>\w+)>\n(?P<content>.*?)^ *# </if (?P=name)>\n", re.MULTILINE | re.DOTALL
)

# A rewritten request is larger than the client's: history is added to it.
_BODY_GROWTH = 2
_ENVOY_UINT32_MAX = (1 << 32) - 1
_GROUP_ALONE = 0o660
_STDOUT = "/dev/stdout"


def render(settings: Settings, template: Path = TEMPLATE) -> str:
    """Return Envoy's config."""
    filled = {name: json.dumps(value) for name, value in values(settings).items()}
    return fill(template, filled, blocks(settings))


def fill(template: Path, filled: Mapping[str, str], wanted: Collection[str]) -> str:
    """Return the template with `filled` in its places, each of them JSON, and only the blocks in `wanted`."""
    return Template(only(wanted, template.read_text(encoding="utf-8"))).substitute(filled)


def values(settings: Settings) -> dict[str, object]:
    """Return what goes into the template's places; what belongs to a block is there with its block."""
    return {
        "admin_socket": str(settings.admin_socket),
        "listen_host": settings.listen.host,
        "listen_port": settings.listen.port,
        "stream_idle_timeout": seconds(settings.envoy.stream_idle_seconds),
        "model_listener": {"pipe": {"path": str(settings.model.socket), "mode": _GROUP_ALONE}},
        "model_body_limit": min(settings.limits.body_bytes * _BODY_GROWTH, _ENVOY_UINT32_MAX),
        "sidecar_discovery": "STATIC",
        "sidecar_endpoints": [
            pipe(settings.worker_socket(index)) for index in range(settings.sidecar.workers)
        ],
        "content_discovery": "STATIC",
        "content_endpoints": [
            pipe(settings.content_socket(index)) for index in range(settings.sidecar.workers)
        ],
        **model_cluster.values(settings),
        **_http(settings),
        **identity.values(settings),
        **_jwks(settings),
        **rate_limit.values(settings),
        "access_log": _STDOUT if settings.envoy.access_log == "-" else settings.envoy.access_log,
    }


def blocks(settings: Settings) -> set[str]:
    """Return the names of the template's blocks that the settings ask for."""
    asked = {
        "inline": settings.envoy.inline,
        "model_listener": settings.model.via != "request",
        "access_log": settings.envoy.access_log is not None,
        "rate_limit": settings.envoy.rate_limit_url is not None,
        "no_rate_limit": settings.envoy.rate_limit_url is None,
    }
    own = {name for name, wanted in asked.items() if wanted}
    return own | identity.blocks(settings) | model_cluster.blocks(settings)


def render_plain(settings: Settings) -> str:
    """Return the config without ext_proc; raises SettingsError for what it cannot do."""
    if settings.http.listen is None:
        raise SettingsError(
            ["HOLDFAST_HTTP__LISTEN (http.listen) is needed: where is HTTP served?"]
        )
    if problems := problems_without_ext_proc(settings):
        raise SettingsError(problems)
    return render(settings, PLAIN_TEMPLATE)


def _http(settings: Settings) -> dict[str, object]:
    """Return how Envoy reaches the workers by HTTP; a port is one endpoint, however many listen on it."""
    addresses = [settings.http_address(index) for index in range(settings.sidecar.workers)]
    endpoints = {str(address): _http_endpoint(address) for address in addresses if address}
    first = addresses[0]
    named = isinstance(first, TcpAddress) and not ModelEndpoint("", host=first.host).literal
    return {
        "http_discovery": "STRICT_DNS" if named else "STATIC",
        "http_endpoints": list(endpoints.values()),
    }


def _http_endpoint(address: HttpAddress) -> dict[str, object]:
    if isinstance(address, UnixAddress):
        return pipe(address.path)
    socket = {"address": address.host, "port_value": address.port}
    return {"endpoint": {"address": {"socket_address": socket}}}


def only(wanted: Collection[str], template: str) -> str:
    """Return the template without its marks, and without the blocks that are not wanted."""

    def kept(block: re.Match[str]) -> str:
        return _BLOCK.sub(kept, block["content"]) if block["name"] in wanted else ""

    return _BLOCK.sub(kept, template)


def _jwks(settings: Settings) -> dict[str, object]:
    """Return how Envoy reaches the keys of tokens, where they are on another server."""
    if settings.jwt.jwks_uri is None:
        return {}
    parts = urlsplit(settings.jwt.jwks_uri)
    endpoint = parse_model_url(f"{parts.scheme}://{parts.netloc}")
    return {
        "jwks_uri": settings.jwt.jwks_uri,
        "jwks_discovery": "STATIC" if endpoint.literal else "STRICT_DNS",
        "jwks_endpoints": [endpoint_of(endpoint)],
        "jwks_transport_socket": transport_socket(endpoint, settings.jwt.ca_file),
    }
