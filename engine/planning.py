"""How a response begins: with its first turn, or with a look at its context (`context_management`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.api import checks
from engine.api.request import CreateRequest
from engine.context.compacted import COMPACTION, unpack
from engine.context.listed import NOTHING_SHOWN, Shown
from engine.context.seals import Seals
from engine.context.sources import NO_SOURCES, Sources
from engine.context.summaries import divided
from engine.limits import Limits
from engine.response.agenda import Agenda
from engine.response.compaction import Compaction, Plan
from engine.response.consent import ASKING, ApprovedCall, Asking
from engine.response.turn import Encoder, TurnRequest
from engine.summaries import Summaries
from engine.upstream.rules import turn_rules

_PARAM = "context_management"


def check_context(request: CreateRequest, seals: Seals) -> None:
    """Refuse a `context_management` that cannot be honoured; raises InvalidRequest."""
    if not request.compacts:
        return
    if request.values.get("truncation") == "auto":
        why = "with 'truncation': 'auto' the history would be cut before it is summarised."
        raise checks.unsupported(_PARAM, why)
    seals.require(_PARAM)


def asked_for(
    request: CreateRequest,
    replay: list[bytes],
    headers: Mapping[str, str],
    limits: Limits,
    encoder: Encoder,
    *,
    approved: tuple[ApprovedCall, ...] = (),
    shown: Shown = NOTHING_SHOWN,
    asking: Asking = ASKING,
    sources: Sources = NO_SOURCES,
) -> TurnRequest | Agenda:
    """Return the one turn of a request, or the agenda of one with tools that the gateway runs.

    `replay` is what the model is sent of history and input, `shown` the lists of tools among these, and
    `sources` what searches among these have found.
    """
    replay = [*request.preface, *replay]
    if request.owned:
        return Agenda(
            request=request,
            encoder=encoder,
            replay=replay,
            headers=headers,
            most_turns=limits.turns,
            approved=approved,
            shown=shown,
            asking=asking,
            sources=sources,
        )
    body = encoder.encode(request, replay)
    rules = turn_rules(request, tells_cuts=encoder.tells_cuts)
    rules = msgspec.structs.replace(rules, sources=sources)
    return TurnRequest(body, headers, rules, encoder.name)


def planned(
    request: CreateRequest,
    replay: list[bytes],
    headers: Mapping[str, str],
    limits: Limits,
    encoder: Encoder,
    *,
    summaries: Summaries,
    seals: Seals,
    approved: tuple[ApprovedCall, ...] = (),
    shown: Shown = NOTHING_SHOWN,
    asking: Asking = ASKING,
    sources: Sources = NO_SOURCES,
) -> Plan:
    """Return the same behind a look at the context, where the request asks for one."""

    def goes_on(context: list[bytes]) -> TurnRequest | Agenda:
        return asked_for(
            request,
            context,
            headers,
            limits,
            encoder,
            approved=approved,
            shown=shown,
            asking=asking,
            sources=sources,
        )

    if not request.compacts:
        return goes_on(replay)
    context = divided(replay)
    before: Sequence[bytes] = [*context.leading, *context.covered]
    return Compaction(
        threshold=request.compact_threshold,
        context=context,
        turn=lambda: summaries.turn(request, before, headers),
        goes_on=goes_on,
        request=request,
        headers=headers,
        seal=lambda text: seals.seal(text, COMPACTION),
        open=lambda sealed: unpack(seals.unseal(sealed, _PARAM, COMPACTION)).replay.encode(),
    )
