"""What the settings say, as the values that the parts of a worker are built with."""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import ip_network

from engine.limits import Limits
from engine.ports import Sealing
from engine.upstream.care import Care
from engine.upstream.choice import Choice
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url
from extproc.handover import Handover
from extproc.identity import (
    Identify,
    from_attribute,
    from_header,
    from_metadata,
    nobody_in_particular,
)
from extproc.mcp.target import McpLimits
from extproc.model_client import HttpModelClient, NoModelClient
from extproc.outbound.policy import OutboundPolicy
from extproc.sealing import AesSealing, NoSealing
from extproc.settings import Settings, SettingsError
from extproc.settings_dialect import parse_dialects
from extproc.settings_tenancy import JWT_KEY, JWT_NAMESPACE

_DAY = 86_400.0


def model_client(settings: Settings) -> HttpModelClient | NoModelClient:
    """Return the way to the model: through Envoy's private listener, straight to its URL, or none."""
    model = settings.model
    if model.via == "request":
        return NoModelClient()
    direct = parse_model_url(model.url) if model.via == "url" and model.url is not None else None
    return HttpModelClient(
        direct or ModelEndpoint(authority="model", socket=model.socket),
        trusted=model.ca_file,
        connect=settings.model.connect_seconds,
        silence=settings.model.silence_seconds,
        api_key=model_key(settings),
    )


def model_key(settings: Settings) -> str | None:
    """Return the key that model turns carry, or None."""
    key = settings.model.api_key
    return None if key is None else key.get_secret_value()


def dialect_choice(settings: Settings) -> Choice:
    """Return what chooses the dialect of each model."""
    model = settings.model
    server = None if model.server == "auto" else model.server
    care = Care(
        check_output=model.check_output != "off",
        ask_again=model.check_output == "retry",
        estimate_reasoning=model.estimate_reasoning_tokens,
    )
    return Choice(
        model.dialect,
        parse_dialects(model.dialects),
        server=server,
        care=care,
        salts=model.cache_salt,
    )


def sealing_of(settings: Settings) -> Sealing:
    """Return what seals, with the keys of the settings; without any, what refuses to."""
    keys = settings.sealing.read()
    return AesSealing(keys) if keys else NoSealing()


def handover_of(settings: Settings) -> Handover:
    """Return how downloads are handed over; raises SettingsError for a port without keys for its tickets."""
    if settings.sealing.given:
        return Handover(sealing_of(settings))
    if settings.sidecar.content_listen is not None:
        raise SettingsError(
            [
                "HOLDFAST_SEALING__KEYS (sealing.keys) is needed with sidecar.content_listen: without a "
                "key, whoever reaches that port could say whose files they are asking for"
            ]
        )
    return Handover()


def outbound_policy(settings: Settings) -> OutboundPolicy:
    """Return which targets a request or a tenant may name."""
    outbound = settings.outbound
    return OutboundPolicy(
        allow_http=outbound.allow_http,
        only_hosts=outbound.only_hosts,
        private_hosts=outbound.private_hosts,
        networks=tuple(map(ip_network, outbound.networks)),
    )


def mcp_limits(settings: Settings) -> McpLimits:
    """Return the bounds of MCP connections."""
    tools = settings.tools
    return McpLimits(
        connections=tools.connections,
        connect=min(10.0, tools.list_seconds),
        silence=tools.call_seconds + 60,
        answer_bytes=tools.answer_bytes,
        output_text=tools.output_characters,
    )


def consent_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys that vouch for requests for consent that are not stored: made from those that seal."""
    keys = settings.sealing.read()
    return tuple(hmac.new(key, b"holdfast consent", hashlib.sha256).digest() for key in keys)


def identity_source(settings: Settings) -> Identify:
    """Return how a request's tenant is found; the settings were checked to name all that it needs."""
    tenancy = settings.tenancy
    match tenancy.source:
        case None:
            return nobody_in_particular
        case "jwt":
            return from_metadata(JWT_NAMESPACE, (JWT_KEY, *settings.jwt.claim))
        case "header":
            return from_header(tenancy.header or "")
        case "metadata":
            return from_metadata(tenancy.metadata_namespace or "", tenancy.metadata_path)
        case "attribute":
            return from_attribute(tenancy.attribute or "")


def limits_of(settings: Settings) -> Limits:
    """Return the engine's bounds."""
    limits, sidecar = settings.limits, settings.sidecar
    return Limits(
        input_items=limits.input_items,
        tools=limits.tools,
        line_bytes=limits.line_bytes,
        response_bytes=limits.response_bytes,
        error_bytes=limits.error_bytes,
        answer_bytes=limits.response_bytes,
        open_after=sidecar.open_after_seconds,
        heartbeat=sidecar.heartbeat_seconds,
        turn=settings.model.turn_seconds,
        response=settings.tools.response_seconds,
        stream_retries=settings.routing.stream_retries if settings.model.via != "request" else 0,
        background_retries=settings.routing.background_retries,
        save_wait=settings.postgres.outage_seconds,
        lease=settings.postgres.lease_seconds,
        detached=sidecar.detached_seconds,
        log_bytes=settings.postgres.log_bytes,
        log_interval=settings.postgres.log_seconds,
        keep=settings.postgres.retention_days * _DAY or None,
        conversation_wait=settings.conversations.wait_seconds,
        turns=settings.tools.turns,
        tool_list=settings.tools.list_seconds,
        tool_call=settings.tools.call_seconds,
        tool_calls=settings.tools.calls,
        response_tool_calls=settings.tools.response_calls,
        search_results=settings.tools.search_results,
        search_bytes=settings.tools.search_bytes,
        file_bytes=settings.files.file_bytes,
        input_file_bytes=settings.files.input_bytes,
        input_text_bytes=settings.files.input_text_bytes,
        part_bytes=settings.files.part_bytes,
        upload_bytes=settings.files.upload_bytes,
        upload_seconds=settings.files.upload_seconds,
    )
