"""Pieces of Envoy's configuration that several clusters are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extproc.envoy.endpoint import ModelEndpoint

# Where the distributions keep the certificates of the authorities that they trust.
CA_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine, Arch
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),
)

_TRANSPORT_SOCKETS = "type.googleapis.com/envoy.extensions.transport_sockets"


def seconds(duration: float) -> str:
    """Return a duration as protobuf's JSON has it."""
    return f"{duration:.3f}s"


def pipe(path: Path) -> dict[str, Any]:
    """Return the endpoint at a unix socket."""
    return {"endpoint": {"address": {"pipe": {"path": str(path)}}}}


def endpoint_of(endpoint: ModelEndpoint) -> dict[str, Any]:
    """Return the endpoint at a unix socket, or at a host and port."""
    if endpoint.socket is not None:
        return pipe(endpoint.socket)
    address = {"address": endpoint.host, "port_value": endpoint.port}
    return {"endpoint": {"address": {"socket_address": address}}}


def transport_socket(
    endpoint: ModelEndpoint, ca_file: Path | None, *, http2: bool = False
) -> dict[str, object]:
    """Return plain TCP, or TLS that is verified against `ca_file` (None: the system's authorities)."""
    if not endpoint.tls:
        raw = {"@type": f"{_TRANSPORT_SOCKETS}.raw_buffer.v3.RawBuffer"}
        return {"name": "envoy.transport_sockets.raw_buffer", "typed_config": raw}
    # A certificate for a literal address names the address, in a field of another type.
    san = "IP_ADDRESS" if endpoint.literal else "DNS"
    common: dict[str, object] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "validation_context": {
            "trusted_ca": {"filename": str(ca_file or ca_bundle())},
            "match_typed_subject_alt_names": [
                {"san_type": san, "matcher": {"exact": endpoint.host}}
            ],
        },
    }
    if http2:
        common["alpn_protocols"] = ["h2"]
    tls: dict[str, object] = {
        "@type": f"{_TRANSPORT_SOCKETS}.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    }
    if not endpoint.literal:
        tls["sni"] = endpoint.host
    return {"name": "envoy.transport_sockets.tls", "typed_config": tls}


def ca_bundle() -> Path:
    """Return this system's file of trusted authorities (the usual place if there is none here)."""
    return next((bundle for bundle in CA_BUNDLES if bundle.is_file()), CA_BUNDLES[0])
