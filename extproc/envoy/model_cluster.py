"""What the Envoy config must have so that each model turn reaches the right one of the model servers."""

from __future__ import annotations

from extproc.envoy.endpoint import ModelEndpoint, parse_model_url, parse_model_urls
from extproc.envoy.parts import endpoint_of, seconds, transport_socket
from extproc.settings import Settings


def blocks(settings: Settings) -> set[str]:
    """Return the names of the template's blocks that the settings ask for."""
    routing = settings.routing
    asked = {
        "picker": routing.picker_url is not None,
        "health": routing.health_path is not None,
        "embeddings": settings.embeddings.url is not None,
    }
    return {name for name, wanted in asked.items() if wanted}


def values(settings: Settings) -> dict[str, object]:
    """Return the template's values of model servers; without a model URL there is the demo model's socket."""
    model, routing = settings.model, settings.routing
    servers = parse_model_urls(
        model.url if model.url is not None else f"unix:{settings.demo_socket}"
    )
    first = servers[0]
    return {
        "model_discovery": _discovery(first),
        "model_endpoints": [_named(server) for server in servers],
        "model_transport_socket": transport_socket(first, model.ca_file),
        "model_connect_timeout": seconds(model.connect_seconds),
        # Empty means "as it came".
        "prefix_rewrite": f"{first.base}/" if first.base else "",
        "model_load_percent": routing.load_percent,
        "model_retries": routing.retries,
        "model_health_path": routing.health_path,
        "model_health_host": first.authority,
        **_picker(settings),
        **_embeddings(settings),
    }


def _picker(settings: Settings) -> dict[str, object]:
    routing = settings.routing
    if routing.picker_url is None:
        return {}
    picker = parse_model_url(routing.picker_url)
    return {
        "picker_discovery": _discovery(picker),
        "picker_endpoints": [endpoint_of(picker)],
        "picker_transport_socket": transport_socket(picker, routing.picker_ca_file, http2=True),
    }


def _embeddings(settings: Settings) -> dict[str, object]:
    """Return how Envoy reaches a server of embeddings that is none of the model servers."""
    embeddings = settings.embeddings
    if embeddings.url is None:
        return {}
    server = parse_model_url(embeddings.url)
    return {
        "embeddings_path": f"{server.base}/v1/embeddings",
        "embeddings_discovery": _discovery(server),
        "embeddings_endpoints": [_named(server)],
        "embeddings_transport_socket": transport_socket(server, embeddings.ca_file),
    }


def _discovery(endpoint: ModelEndpoint) -> str:
    return "STRICT_DNS" if endpoint.named else "STATIC"


def _named(server: ModelEndpoint) -> dict[str, object]:
    """Return the endpoint with its own Host header."""
    endpoint = endpoint_of(server)
    endpoint["endpoint"]["hostname"] = server.authority
    return endpoint
