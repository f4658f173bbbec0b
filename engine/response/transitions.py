"""What can happen to a response in each phase, and the phases that it may lead to.

An input without a row is a bug of the caller; nothing is ignored. ARCHITECTURE.md draws this table.

    NEW [-> QUEUED] [-> COMPACTING] [-> LISTING] -> CALLING -> STREAMING -> SAVING -> CLOSED
                    ^               ^               ^          |`-- taken over from a worker that is gone:
                    |               |               |          |    CALLING again
                    |               |               |          `-- owned tools are called: RUNNING, then
                    |               |               |              CALLING again
                    `---------------`---------------`-- failed with nothing sent: refused -> CLOSED
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Cancelled,
    Cited,
    ContextCompacted,
    CutShort,
    Failed,
    Fits,
    ItemEnded,
    ItemStarted,
    ModelAnswered,
    Queued,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    RoundEnded,
    Saved,
    SaveFailed,
    SummaryDelta,
    TextDelta,
    ToolEnded,
    ToolsListed,
    TurnEnded,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
    WaitedLong,
)
from engine.response.phase import Phase


def _to(*phases: Phase) -> frozenset[Phase]:
    return frozenset(phases)


_BEGINNINGS = (Phase.COMPACTING, Phase.LISTING, Phase.CALLING)
_ENDS = (Phase.SAVING, Phase.CLOSED)

TRANSITIONS: Mapping[Phase, Mapping[type, frozenset[Phase]]] = {
    Phase.NEW: {
        Queued: _to(Phase.QUEUED),
        Begin: _to(*_BEGINNINGS),
    },
    Phase.QUEUED: {
        Begin: _to(*_BEGINNINGS),
        Failed: _to(Phase.SAVING),
        Cancelled: _to(Phase.SAVING),
    },
    Phase.COMPACTING: {
        WaitedLong: _to(Phase.COMPACTING),
        Fits: _to(Phase.LISTING, Phase.CALLING),
        ContextCompacted: _to(Phase.LISTING, Phase.CALLING),
        Resumed: _to(Phase.COMPACTING),
        Failed: _to(*_ENDS),
        CutShort: _to(*_ENDS),
        Cancelled: _to(*_ENDS),
    },
    Phase.LISTING: {
        WaitedLong: _to(Phase.LISTING),
        ToolsListed: _to(Phase.CALLING, Phase.RUNNING, *_ENDS),
        Resumed: _to(Phase.LISTING),
        Failed: _to(*_ENDS),
        CutShort: _to(*_ENDS),
        Cancelled: _to(*_ENDS),
    },
    Phase.CALLING: {
        WaitedLong: _to(Phase.CALLING),
        ModelAnswered: _to(Phase.STREAMING),
        Failed: _to(*_ENDS),
        CutShort: _to(*_ENDS),
        Cancelled: _to(*_ENDS),
    },
    Phase.STREAMING: {
        ItemStarted: _to(Phase.STREAMING),
        TextDelta: _to(Phase.STREAMING),
        Cited: _to(Phase.STREAMING),
        RefusalDelta: _to(Phase.STREAMING),
        ArgumentsDelta: _to(Phase.STREAMING),
        ReasoningDelta: _to(Phase.STREAMING),
        SummaryDelta: _to(Phase.STREAMING),
        UpstreamStarted: _to(Phase.STREAMING),
        UpstreamEvent: _to(Phase.STREAMING),
        UpstreamEnded: _to(Phase.STREAMING),
        ItemEnded: _to(Phase.STREAMING),
        Resumed: _to(Phase.CALLING),
        TurnEnded: _to(Phase.RUNNING, *_ENDS),
        Failed: _to(*_ENDS),
        CutShort: _to(*_ENDS),
        Cancelled: _to(*_ENDS),
    },
    Phase.RUNNING: {
        ToolEnded: _to(Phase.RUNNING),
        RoundEnded: _to(Phase.CALLING, *_ENDS),
        Resumed: _to(Phase.CALLING),
        Failed: _to(*_ENDS),
        CutShort: _to(*_ENDS),
        Cancelled: _to(*_ENDS),
    },
    Phase.SAVING: {
        Saved: _to(Phase.CLOSED),
        SaveFailed: _to(Phase.CLOSED),
    },
    Phase.CLOSED: {},
}
