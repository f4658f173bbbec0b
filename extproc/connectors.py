"""The operator's connectors as the engine has them, and how far each may reach (rule X3)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from urllib.parse import urlsplit

from engine.api.connectors import Connector, ConnectorFields, Secrets
from extproc.outbound.policy import OutboundPolicy
from extproc.settings_connectors import SharedConnector

_PORTS = {"http": 80, "https": 443}


def shared_connectors(given: Sequence[SharedConnector]) -> list[Connector]:
    """Return the connectors of the settings; where their servers are is for nobody to see."""
    return [_connector(each) for each in given]


def shared_policies(
    given: Sequence[SharedConnector], general: OutboundPolicy
) -> dict[str, OutboundPolicy]:
    """Return what each connector may reach, by its id: its own host, in its own networks too."""
    return {_id(each): _policy(each, general) for each in given}


def _id(shared: SharedConnector) -> str:
    # No tenant's connector can have it: those are `conn_` and 32 hexadecimal digits.
    return f"conn_settings_{shared.label}"


def _connector(shared: SharedConnector) -> Connector:
    secret = shared.authorization
    headers = shared.sent_headers()
    fields = ConnectorFields(
        id=_id(shared),
        created_at=0,
        source="settings",
        server_label=shared.label,
        server_url=None,
        description=shared.description,
        allowed_tools=list(shared.allowed_tools) or None,
        require_approval=shared.require_approval,
        has_authorization=secret is not None,
        header_names=list(headers),
    )
    token = None if secret is None else secret.get_secret_value()
    return Connector(fields, shared.url, Secrets(token, headers))


def _policy(shared: SharedConnector, general: OutboundPolicy) -> OutboundPolicy:
    parts = urlsplit(shared.url)
    return OutboundPolicy(
        allow_http=parts.scheme == "http",
        only_hosts=((parts.hostname or "").lower(),),
        private_hosts=general.private_hosts,
        networks=(*general.networks, *map(ip_network, shared.networks)),
        ports=frozenset((parts.port or _PORTS[parts.scheme],)),
    )
