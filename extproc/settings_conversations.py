"""The settings of conversations (docs/conversations.md)."""

from __future__ import annotations

from extproc.settings_section import Seconds, Section


class Conversations(Section):
    """Conversations, whose turns are made one after the other."""

    wait_seconds: Seconds = 60.0
    """How long a turn, or items that are added, wait for the turns before them; then they are refused with a
    409. Longer than `postgres.lease_seconds`, a wait outlives a worker that died with the conversation."""
