"""A turn of a response in the background is begun anew where its stream failed in the middle.

What the failed one had made stays shown, as behind a worker that died (ADR 9): the open item is closed as
incomplete, and no later turn is sent it. Owned calls that are finished are kept, and none is run again.
A function call that is finished belongs to the client, who might run it twice: that turn is not begun anew,
nor is one in which the model server runs tools of its own.
"""

from __future__ import annotations

import asyncio

from engine.careful_call import CarefulCall
from engine.response.inputs import Begin, Ending, Failed, Resumed
from engine.response.machine import ResponseMachine
from engine.retries import passes
from engine.run import Means, Run


class Anew:
    """Of one run; a run in the foreground is never begun anew: its client sees the failure at once."""

    def __init__(self, run: Run, means: Means) -> None:
        self._run = run
        self._machine: ResponseMachine = run.machine
        self._budget = means.retries
        self._first_wait = means.limits.retry_wait
        self._most = means.limits.background_retries if run.background else 0
        self._done = 0
        self.pending = False
        """True from a failure until the turn that is asked for in its place."""

    def allows(self, turn: CarefulCall, ending: Ending) -> bool:
        """Return whether the turn that ended so is begun anew; it is counted then."""
        if not isinstance(ending, Failed) or not turn.begun:
            return False
        if self._machine.called or not turn.repeatable:
            return False
        if self._done == self._most or not isinstance(self._run.first, Begin | Resumed):
            return False
        self.pending = passes(ending.error) and self._budget.spend(self._run.id, ending.error)
        self._done += self.pending
        return self.pending

    async def begin(self) -> Resumed:
        """Return what the machine is told, after a pause that doubles each time."""
        assert isinstance(self._run.first, Begin | Resumed)
        await asyncio.sleep(self._first_wait * 2 ** (self._done - 1))
        return Resumed(self._run.first.turn)
