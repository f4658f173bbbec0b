"""The turns of a response and the rounds of owned calls between them, counted (rule T4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from engine.context.compacted import COMPACTION
from engine.ports import StoredItem
from engine.response.agenda import Agenda, Listing, OwnedTools
from engine.response.consent import ApprovedCall
from engine.response.effects import RunTools, ToolCall
from engine.response.owned_call import OpenOwnedCall
from engine.response.turn import TurnRequest

_OVER = "'max_tool_calls' is reached."
_GONE = "The server does not offer this tool any more."
_FORBIDDEN = "'tool_choice' does not allow this tool."


class Rounds:
    """What was asked of the model and of owned tools so far; of use only where there is an agenda."""

    def __init__(self) -> None:
        self.listed = False
        self._agenda: Agenda | None = None
        self._turns = 0
        self._rounds = 0
        """Of calls that the model made: what was approved comes before its first turn."""
        self._round: tuple[ToolCall, ...] = ()
        self._calls = 0
        self._offered: Mapping[str, Collection[str]] = {}

    @property
    def ran_tools(self) -> bool:
        """True once a tool was run."""
        return self._calls > 0

    def follow(self, agenda: Agenda) -> None:
        """Make the turns of this agenda from now on."""
        self._agenda = agenda

    def list(self, listings: Sequence[Listing]) -> OwnedTools:
        """Return the tools that are the gateway's, as they are listed."""
        self.listed = True
        known = [one for one in listings if one.error is None]
        self._offered = {one.label: {tool.name for tool in one.tools} for one in known}
        return self._followed.tools(listings)

    def unshown(self, listings: Sequence[Listing]) -> tuple[Listing, ...]:
        """Return the lists that the client has to be shown."""
        return self._followed.unshown(listings)

    @property
    def approved(self) -> tuple[ApprovedCall, ...]:
        """The calls that come before the first turn."""
        return self._followed.approved

    def turn(self, owned: OwnedTools, made: Sequence[StoredItem]) -> TurnRequest:
        """Return the next turn, behind all that was made: what tools answered is input now (rule M9)."""
        # What is compacted is in the agenda already.
        added = [item for item in made if item.type != COMPACTION]
        self._turns += 1
        # One that a dead worker asked for and that called nothing is the first again.
        return self._followed.turn(owned, added, first=not self._rounds)

    def run(self, waiting: Iterable[OpenOwnedCall]) -> RunTools:
        """Return the next round: the calls that the model made, or those that come before its first turn."""
        self._rounds += self._turns > 0
        self._round = tuple(map(self._call, waiting))
        return RunTools(self._round)

    def cap(self) -> str | None:
        """Return what keeps the model from another turn: none of its calls was made, or it had enough."""
        refused = {call.refused for call in self._round}
        if None not in refused and _OVER in refused:
            return "max_tool_calls"
        return "max_turns" if self._turns >= self._followed.most_turns else None

    @property
    def _followed(self) -> Agenda:
        assert self._agenda is not None
        return self._agenda

    def _call(self, waiting: OpenOwnedCall) -> ToolCall:
        refused = self._refusal(waiting)
        self._calls += refused is None
        label, name = waiting.key
        return ToolCall(waiting.id, label, name, waiting.arguments.encode(), refused)

    def _refusal(self, waiting: OpenOwnedCall) -> str | None:
        """Return why a call is not to be made. What a user consented to, no `tool_choice` forbids."""
        request, (label, name) = self._followed.request, waiting.key
        if name not in self._offered.get(label, (name,)):
            return _GONE
        if waiting.request_id is None and not request.tool_choice.allows_owned(waiting.key):
            return _FORBIDDEN
        most = request.max_tool_calls
        return _OVER if most is not None and self._calls >= most else None
