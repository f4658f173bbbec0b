"""What the controllers of Istio and Envoy Gateway would make of the chart's manifests: a config for Envoy.

No controller runs here. Of their translation this is the part that the manifests are about: routes by their
precedence, the filters that policies and patches put in, and what is overridden for single routes. What they
add of their own (authentication, telemetry, names in their own style) is left out.
"""

from __future__ import annotations

from typing import Any

from tests.support import chart
from tests.support.chart import Manifest

_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{_HTTP}.router.v3.Router"},
}
_HCM = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
_H2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
Address = tuple[str, int]
Parts = tuple[list[Manifest], list[Manifest]]
"""HTTP filters and routes of a listener."""
WORKERS, CONTENT, SERVERS = "workers", "content", "servers"
_OF_PORTS = {9000: WORKERS, 9001: CONTENT}


def istio(made: list[Manifest], *neighbours: list[Manifest]) -> Parts:
    """Return the HTTP filters and routes of an ingress gateway: the VirtualService, patched.

    The patches of other installations are applied as well, and first; their workers are not there.
    """
    filters: list[Manifest] = []
    merged: dict[str, Manifest] = {}
    for release in (*neighbours, made):
        for patch in _only_kind("EnvoyFilter", release)["spec"]["configPatches"]:
            value = patch["patch"]["value"]
            if patch["applyTo"] == "HTTP_ROUTE":
                name = patch["match"]["routeConfiguration"]["vhost"]["route"]["name"]
                told = merged.setdefault(name, {"typed_per_filter_config": {}})
                told["typed_per_filter_config"].update(value["typed_per_filter_config"])
            elif patch["patch"]["operation"] == "INSERT_BEFORE":
                filters.append(_to(WORKERS if release is made else SERVERS, value))
    routes = [
        {
            "name": http["name"],
            "match": match,
            "route": _route(http),
            **merged.get(http["name"], {}),
        }
        for http in chart.only("VirtualService", made)["spec"]["http"]
        for match in map(_istio_match, http.get("match", [{}]))
    ]
    return filters, routes


def envoy_gateway(made: list[Manifest]) -> Parts:
    """Return the HTTP filters and routes of a Gateway: HTTPRoutes by precedence, each with its policy."""
    policies = {
        policy["spec"]["targetRefs"][0]["name"]: policy
        for policy in made
        if policy["kind"] == "EnvoyExtensionPolicy"
    }
    filters, routes = [], []
    for route in made:
        if route["kind"] != "HTTPRoute" or route["spec"]["parentRefs"][0]["name"] != "public":
            continue
        name = route["metadata"]["name"]
        override: Manifest = {}
        if name in policies:
            filters.append(_ext_proc(name, policies[name]["spec"]["extProc"][0]))
            on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
            override = {"typed_per_filter_config": {name: on}}
        routes += [
            {
                "name": name,
                "match": _gateway_match(match),
                "route": _target(rule["backendRefs"][0]["port"], rule["timeouts"]["request"]),
                **override,
            }
            for rule in route["spec"]["rules"]
            for match in rule["matches"]
        ]
    return filters, sorted(routes, key=_precedence)


def config(listeners: dict[int, Parts], workers: Address, servers: Address, admin: str) -> Manifest:
    """Return a whole config with listeners by their ports; the workers' content is at their next port."""
    host, port = workers
    return {
        "admin": {"address": {"pipe": {"path": admin, "mode": 384}}},
        "static_resources": {
            "listeners": [_listener(port, parts) for port, parts in listeners.items()],
            "clusters": [
                {**_cluster(WORKERS, workers), "typed_extension_protocol_options": _H2},
                _cluster(CONTENT, (host, port + 1)),
                _cluster(SERVERS, servers),
            ],
        },
    }


def all_to_servers() -> Parts:
    """Return the parts of a listener of which everything goes to the model servers."""
    route = {"cluster": SERVERS, "timeout": "0s"}
    return [], [{"name": "turns", "match": {"prefix": "/"}, "route": route}]


def _only_kind(kind: str, among: list[Manifest]) -> Manifest:
    [found] = [manifest for manifest in among if manifest["kind"] == kind]
    return found


def _to(cluster: str, inserted: Manifest) -> Manifest:
    typed = inserted["typed_config"]
    grpc = {**typed["grpc_service"], "envoy_grpc": {"cluster_name": cluster}}
    return {**inserted, "typed_config": {**typed, "grpc_service": grpc}}


def _istio_match(match: Manifest) -> Manifest:
    made: Manifest = {}
    uri = match.get("uri", {"prefix": "/"})
    [(kind, path)] = uri.items()
    if kind == "regex":
        made["safe_regex"] = {"regex": path}
    else:
        made["path" if kind == "exact" else "prefix"] = path
    return made | _method(match["method"]["exact"] if "method" in match else None)


def _gateway_match(match: Manifest) -> Manifest:
    path = match["path"]["value"]
    if match["path"]["type"] == "RegularExpression":
        return {"safe_regex": {"regex": path}} | _method(match.get("method"))
    assert match["path"]["type"] == "PathPrefix"
    found = {"prefix": "/"} if path == "/" else {"path_separated_prefix": path}
    return found | _method(match.get("method"))


def _method(method: str | None) -> Manifest:
    if method is None:
        return {}
    return {"headers": [{"name": ":method", "string_match": {"exact": method}}]}


def _precedence(route: Manifest) -> tuple[bool, int, int]:
    """Order as the Gateway API says (expressions first): the longest path, then those with a method."""
    match = route["match"]
    prefixed = "safe_regex" not in match
    return prefixed, -len(match.get("path_separated_prefix", "/")), -len(match.get("headers", []))


def _route(http: Manifest) -> Manifest:
    [to] = http["route"]
    return _target(to["destination"]["port"]["number"], http["timeout"])


def _target(port: int, timeout: str) -> Manifest:
    return {"cluster": _OF_PORTS.get(port, SERVERS), "timeout": timeout}


def _ext_proc(name: str, policy: Manifest) -> Manifest:
    """Return the filter of a policy: what its processingMode does not name is skipped."""
    asked = policy["processingMode"]["request"]
    whole = asked.get("body") == "FullDuplexStreamed"
    return {
        "name": name,
        "disabled": True,
        "typed_config": {
            "@type": f"{_HTTP}.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": WORKERS}},
            "failure_mode_allow": policy["failOpen"],
            "message_timeout": policy["messageTimeout"],
            "request_attributes": asked["attributes"],
            "processing_mode": {
                "request_header_mode": "SEND",
                "response_header_mode": "SKIP",
                "request_body_mode": "FULL_DUPLEX_STREAMED" if whole else "NONE",
                "request_trailer_mode": "SEND" if whole else "SKIP",
            },
        },
    }


def _listener(port: int, parts: Parts) -> Manifest:
    filters, routes = parts
    manager: dict[str, Any] = {
        "@type": _HCM,
        "stat_prefix": f"port-{port}",
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "http_filters": [*filters, _ROUTER],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    manager_filter = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }
    return {
        "name": f"port-{port}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [manager_filter]}],
    }


def _cluster(name: str, address: Address) -> Manifest:
    place = {"socket_address": {"address": address[0], "port_value": address[1]}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place}}]}],
        },
    }
