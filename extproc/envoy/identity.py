"""What the Envoy config must have so that each request says whose it is, or is refused (rules X2, X6).

The two walls: a filter of Envoy's lets no request without an identity to any route, the model's own among
them; the sidecar then reads the very same place (`extproc.identity`) and judges the value.
"""

from __future__ import annotations

from collections.abc import Sequence

from extproc.settings import Settings
from extproc.settings_tenancy import JWT_KEY, JWT_NAMESPACE

_ATTRIBUTES = ["xds.route_name", "request.id", "source.address"]
# Not empty; what else is wrong with an identity is the sidecar's to say.
_SOMETHING = {"safe_regex": {"regex": "(?s).+"}}


def blocks(settings: Settings) -> set[str]:
    """Return the names of the template's blocks that the settings ask for."""
    tenancy, jwt = settings.tenancy, settings.jwt
    asked = {
        "identity": tenancy.mode == "required",
        "own_tenant_header": tenancy.source == "header" and not tenancy.header_from_gateway,
        "jwt": tenancy.source == "jwt",
        "jwks_file": jwt.jwks_file is not None,
        "jwks_uri": jwt.jwks_uri is not None,
    }
    return {name for name, wanted in asked.items() if wanted}


def values(settings: Settings) -> dict[str, object]:
    """Return the template's values that tell of identity."""
    tenancy, jwt = settings.tenancy, settings.jwt
    namespace = JWT_NAMESPACE if tenancy.source == "jwt" else tenancy.metadata_namespace
    return {
        "tenant_header": tenancy.header,
        "request_attributes": [*_ATTRIBUTES, *([tenancy.attribute] if tenancy.attribute else [])],
        "metadata_namespaces": [namespace] if namespace else [],
        "identified": _identified(settings),
        "jwt_issuer": jwt.issuer,
        "jwt_audiences": jwt.audiences,
        "jwt_forward": settings.model.forward_authorization,
        "jwt_key": JWT_KEY,
        "jwks_file": str(jwt.jwks_file),
    }


def _identified(settings: Settings) -> dict[str, object]:
    """Return the policy of Envoy's RBAC filter that lets pass what has an identity."""
    tenancy = settings.tenancy
    policy: dict[str, object] = {"permissions": [{"any": True}]}
    match tenancy.source:
        case "jwt":
            policy["principals"] = [_metadata(JWT_NAMESPACE, (JWT_KEY, *settings.jwt.claim))]
        case "metadata":
            namespace = tenancy.metadata_namespace or ""
            policy["principals"] = [_metadata(namespace, tenancy.metadata_path)]
        case "header":
            header = {"name": tenancy.header, "string_match": _SOMETHING}
            policy["principals"] = [{"header": header}]
        case "attribute":
            policy["principals"] = [{"any": True}]
            policy["condition"] = _has((tenancy.attribute or "").split("."))
        case None:
            pass
    return policy


def _metadata(namespace: str, path: Sequence[str]) -> dict[str, object]:
    matcher = {
        "filter": namespace,
        "path": [{"key": key} for key in path],
        "value": {"string_match": _SOMETHING},
    }
    return {"sourced_metadata": {"metadata_matcher": matcher}}


def _has(steps: Sequence[str]) -> dict[str, object]:
    """Return the syntax tree of the CEL expression `has(a.b.c)`."""
    tree: dict[str, object] = {"ident_expr": {"name": steps[0]}}
    for step in steps[1:-1]:
        tree = {"select_expr": {"operand": tree, "field": step}}
    return {"select_expr": {"operand": tree, "field": steps[-1], "test_only": True}}
