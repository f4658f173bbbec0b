"""What the Envoy config must have for a budget of tokens per tenant (docs/rate-limits.md)."""

from __future__ import annotations

from extproc.envoy.endpoint import parse_model_url
from extproc.envoy.parts import endpoint_of, transport_socket
from extproc.settings import Settings
from extproc.settings_tenancy import JWT_KEY, JWT_NAMESPACE

_KEY = "tenant"
_EXPRESSION = "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"


def values(settings: Settings) -> dict[str, object]:
    """Return the template's values that tell of the rate limit service; none where there is none."""
    if settings.envoy.rate_limit_url is None:
        return {}
    endpoint = parse_model_url(settings.envoy.rate_limit_url)
    return {
        "rate_limit_domain": settings.envoy.rate_limit_domain,
        "rate_limit_discovery": "STRICT_DNS" if endpoint.named else "STATIC",
        "rate_limit_endpoints": [endpoint_of(endpoint)],
        "rate_limit_transport_socket": transport_socket(endpoint, None, http2=True),
        "rate_limit_tenant": _tenant(settings),
        "rate_limit_request_tokens": settings.envoy.rate_limit_request_tokens,
    }


def _tenant(settings: Settings) -> dict[str, object]:
    """Return the action that gives the descriptor `tenant`, from where the sidecar has it, too."""
    tenancy = settings.tenancy
    match tenancy.source:
        case "header":
            return {"request_headers": {"header_name": tenancy.header, "descriptor_key": _KEY}}
        case "jwt":
            return _metadata(JWT_NAMESPACE, (JWT_KEY, *settings.jwt.claim))
        case "metadata":
            return _metadata(tenancy.metadata_namespace or "", tenancy.metadata_path)
        case "attribute":
            config = {"@type": _EXPRESSION, "descriptor_key": _KEY, "text": tenancy.attribute}
            name = "envoy.rate_limit_descriptors.expr"
            return {"extension": {"name": name, "typed_config": config}}
        case None:
            return {"generic_key": {"descriptor_key": _KEY, "descriptor_value": "default"}}


def _metadata(namespace: str, path: tuple[str, ...]) -> dict[str, object]:
    place = {"key": namespace, "path": [{"key": key} for key in path]}
    return {"metadata": {"descriptor_key": _KEY, "metadata_key": place}}
