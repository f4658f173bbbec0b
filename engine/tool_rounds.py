"""The part of a run that its own tools take: they are listed, and called between the model's turns."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from engine.custody import Custody
from engine.delivery import Delivery
from engine.errors import UpstreamFailed
from engine.response.effects import RunTools
from engine.response.inputs import RoundEnded, ToolEnded, ToolsListed, WaitedLong
from engine.run import Means, Run

T = TypeVar("T")


class ToolRounds:
    """Lists and calls what the providers of one run offer."""

    def __init__(self, run: Run, means: Means, custody: Custody, delivery: Delivery) -> None:
        self._run = run
        self._means = means
        self._custody = custody
        self._delivery = delivery

    async def list(self) -> ToolsListed:
        """Ask for the tools while the accepted row is written; a client that waits hears of it (rule R16)."""
        self._custody.accept()
        if self._run.answers:
            # Whoever comes second with the same answer must not have its tool called.
            await self._custody.accepted()
        listing = asyncio.ensure_future(self._listing())
        try:
            if not await came(self._run, listing, self._means.limits.open_after):
                await self._custody.accepted()
                await self._delivery.feed([WaitedLong()])
            return await listing
        finally:
            listing.cancel()

    async def _listing(self) -> ToolsListed:
        with self._run.account.step("list tools"):
            return await self._means.tools.list(self._run.providers)

    async def run(self, asked: RunTools) -> RoundEnded:
        """Run the calls of one turn. What they answered is stored before it is used in the background.

        So is that they are called, where a client has consented: who takes the run over does not call again.
        """

        async def ended(outcome: ToolEnded) -> None:
            await self._delivery.feed([outcome])

        log = self._delivery.log if self._run.background else None
        if log is not None and self._run.approved:
            await log.written()
        run = self._run
        await self._means.tools.run(run.providers, asked.calls, ended, run.account)
        most = self._means.limits.response_bytes
        if self._run.machine.held > most:
            raise UpstreamFailed(f"The output is over {most} bytes.")
        if log is not None:
            await log.written()
        return RoundEnded(self._means.clock())


async def came(run: Run, answer: asyncio.Future[T], seconds: float) -> bool:
    """Wait for it as long as a run's stream may stay closed (rule R16); without a stream, not at all."""
    if not (run.stream or run.streamed):
        return True
    done, _ = await asyncio.wait({answer}, timeout=seconds)
    return bool(done)
