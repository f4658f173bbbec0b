"""What one run tells the meters of its account: at the first output, once a turn, and once at its end."""

from __future__ import annotations

from engine.account import TurnStep
from engine.careful_call import CarefulCall
from engine.ports.meters import Meters
from engine.response.inputs import Cancelled, CutShort, Ending, Failed
from engine.run import Run

# How a response ended, for those that did not end as a response does.
_ENDS = {
    "": "left",
    "lost": "left",
    "handed_over": "left",
}
# No response: the one of an earlier request is told again, or the same one is begun again.
_NONE = frozenset({"repeated", "begun_anew"})


class Measured:
    """Of one run."""

    def __init__(self, run: Run, meters: Meters) -> None:
        self._run = run
        self._account = run.account
        self._meters = meters

    def first_output(self) -> None:
        """Tell that there is something to be seen, where a client has waited for it here."""
        if self._run.lease is None and not self._run.background:
            self._meters.first_token(self._account.model, self._account.until_first)

    def turn_ended(self, step: TurnStep, call: CarefulCall, ending: Ending) -> None:
        """Tell of a turn; one that the model was not asked for is none."""
        account = self._account
        if not call.asked:
            return
        usage = None if call.outcome is None else call.outcome.usage
        self._meters.turn(
            account.model, account.tenant, _error(ending), step.seconds, usage, call.made.repairs
        )
        since = account.since_first
        if account.turns == 1 and since and usage is not None and usage.output_tokens > 1:
            self._meters.pace(account.model, since / (usage.output_tokens - 1))

    def ended(self) -> None:
        """Tell of the run's end."""
        run, account = self._run, self._account
        if account.status in _NONE:
            return
        mode = "stream" if run.stream else "whole"
        if run.background:
            mode = "background" if run.inherited is None else run.inherited
        status = _ENDS.get(account.status, account.status)
        self._meters.response(
            account.model, account.tenant, status, mode, account.turns, account.seconds
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
