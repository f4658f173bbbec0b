"""The part of a run that comes before its turns where its context may be too long: counted, and summed up."""

from __future__ import annotations

import asyncio

from engine.api import checks
from engine.counting import Count, cannot_count
from engine.custody import Custody
from engine.delivery import Delivery
from engine.response.compaction import Compaction
from engine.response.inputs import ContextCompacted, Fits, WaitedLong
from engine.run import Means, Run
from engine.tool_rounds import came

# Of the model's context in per cent, where the request does not say how much.
_SHARE = 80


class CompactionStep:
    """Looks at the context of one run."""

    def __init__(self, run: Run, means: Means, custody: Custody, delivery: Delivery) -> None:
        self._run = run
        self._means = means
        self._custody = custody
        self._delivery = delivery

    async def look(self, wanted: Compaction) -> ContextCompacted | Fits:
        """Return whether it fits, or its summary; a client that waits hears of it (rule R16).

        Raises InvalidRequest where nobody can count, UpstreamRefused, UpstreamFailed, and what kept the run
        from being accepted: whoever comes second, with a key or to a conversation, calls no model.
        """
        self._custody.accept()
        await self._custody.accepted()
        looking = asyncio.ensure_future(self._looked(wanted))
        try:
            if not await came(self._run, looking, self._means.limits.open_after):
                await self._delivery.feed([WaitedLong()])
            return await looking
        finally:
            looking.cancel()
            # A call of the model that nobody waits for any more is over before anything else is done.
            await asyncio.wait({looking})

    async def _looked(self, wanted: Compaction) -> ContextCompacted | Fits:
        with self._run.account.step("compact"):
            return await self._compacted(wanted)

    async def _compacted(self, wanted: Compaction) -> ContextCompacted | Fits:
        counted = await self._means.counting.counted(
            wanted.request, wanted.context.whole, wanted.headers
        )
        if counted is None:
            raise cannot_count("context_management", "Invalid 'context_management': it")
        if counted.count <= _most(wanted, counted) or not wanted.context.covered:
            return Fits()
        account = self._run.account
        summary = await self._means.summaries.summed_up(
            wanted.turn(), self._run.id, model=account.model, tenant=account.tenant
        )
        return ContextCompacted(wanted.summarised(summary.text), summary.usage)


def _most(wanted: Compaction, counted: Count) -> int:
    if wanted.threshold is not None:
        return wanted.threshold
    if not counted.max_model_len:
        raise checks.missing("context_management[0].compact_threshold")
    return counted.max_model_len * _SHARE // 100
