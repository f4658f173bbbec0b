"""Whether the index is the one that was filled: looked at by samples, and told where it is not.

An index that was lost, or another one than before, finds nothing and fails nowhere.
"""

from __future__ import annotations

import logging

from engine.chore import Chore
from engine.indexing import IndexingParts, is_in

_log = logging.getLogger(__name__)

_SECONDS = 600.0
_AT_ONCE = 20


class IndexCheck:
    """Looks when a worker starts, and now and then."""

    def __init__(self, parts: IndexingParts) -> None:
        self._parts = parts
        self._looking = Chore(self._again, _SECONDS, jitter=0.5)

    def start(self) -> None:
        """Begin."""
        self._looking.start()

    async def stop(self) -> None:
        """End."""
        await self._looking.stop()

    async def _again(self) -> bool:
        await self.look()
        return False

    async def look(self) -> None:
        """Look once, and warn if files are missing."""
        sample = await self._parts.store.completed_attachments(after=None, limit=_AT_ONCE)
        missing = 0
        for each in sample:
            missing += not await is_in(self._parts, each.tenant, each.store, each.attachment)
        if missing:
            _log.warning(
                "%d of %d files of vector stores are not in this index, and searches do not find "
                "them: `holdfast reindex` puts them in",
                missing,
                len(sample),
            )
