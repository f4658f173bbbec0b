"""Where a response is in its life."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """A state of the response machine; `engine.response.transitions` says what can happen in each."""

    NEW = "new"
    QUEUED = "queued"
    COMPACTING = "compacting"
    LISTING = "listing"
    CALLING = "calling"
    STREAMING = "streaming"
    RUNNING = "running"
    SAVING = "saving"
    CLOSED = "closed"

    @property
    def unfinished(self) -> bool:
        """True as long as its end is not decided."""
        return self not in (Phase.SAVING, Phase.CLOSED)
