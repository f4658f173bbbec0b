"""What one run tells the meters: at the first output, once a turn, and once at its end."""

from __future__ import annotations

import asyncio

from engine.careful_call import CarefulCall
from engine.ports.meters import Meters
from engine.response.inputs import Cancelled, CutShort, Ending, Failed
from engine.run import Run


class Measured:
    """Of one run. `status` is how it ended, as far as it has: without an end, others go on with it."""

    def __init__(self, run: Run, meters: Meters) -> None:
        self.status = "left"
        self._run = run
        self._meters = meters
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock() if run.began is None else run.began
        # Nobody waits for the first output of a response in the background.
        self._awaited = run.began is not None and not run.background
        self._first = 0.0
        self._turns = 0
        self._turn_began = 0.0

    def turn_begins(self) -> None:
        """Note that the model is called."""
        self._turns += 1
        self._turn_began = self._clock()

    def came(self, held: int) -> None:
        """Note that something came, and how much output is held by now: of each chunk, and so nearly free."""
        if self._awaited and held:
            self._awaited = False
            self._first = self._clock()
            self._meters.first_token(self._run.model_name, self._first - self._began)

    def turn_ended(self, call: CarefulCall, ending: Ending) -> None:
        """Tell of a turn."""
        now = self._clock()
        usage = None if call.outcome is None else call.outcome.usage
        self._meters.turn(
            self._run.model_name,
            self._run.tenant,
            _error(ending),
            now - self._turn_began,
            usage,
            call.made.repairs,
        )
        if self._turns == 1 and self._first and usage is not None and usage.output_tokens > 1:
            pace = (now - self._first) / (usage.output_tokens - 1)
            self._meters.pace(self._run.model_name, pace)

    def ended(self, *, lost: bool) -> None:
        """Tell of the run's end; `lost`: the response is another worker's now."""
        run = self._run
        mode = "background" if run.background else "stream" if run.stream else "whole"
        self._meters.response(
            run.model_name,
            run.tenant,
            "left" if lost else self.status,
            mode,
            self._turns,
            self._clock() - self._began,
        )


def _error(ending: Ending) -> str:
    match ending:
        case Failed(_, error):
            return type(error).__name__
        case CutShort(reason):
            return reason
        case Cancelled():
            return "cancelled"
        case _:
            return ""
