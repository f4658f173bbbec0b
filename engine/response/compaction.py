"""What comes before the first turn of a response whose context may be too long: a summary of it. Pure.

Made from the checked request, so that another worker makes the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from engine.api.request import CreateRequest
from engine.context.compacted import pack
from engine.context.summaries import Divided
from engine.response.agenda import Agenda
from engine.response.turn import TurnRequest

Next = Callable[[list[bytes]], TurnRequest | Agenda]
"""Returns what the response goes on with, from the items that its model is sent."""


class Compacted(msgspec.Struct, frozen=True):
    """A context was summarised: `sealed` is what the client keeps, `replay` what the model is sent of it."""

    sealed: str
    replay: bytes


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    """`turn` asks for a summary, where the context has more than `threshold` tokens; `goes_on` follows.

    `threshold` is None for a share of the model's own context. `request` and `headers` are for counting.
    `open` reads what `seal` has sealed, and raises InvalidRequest.
    """

    threshold: int | None
    context: Divided
    turn: Callable[[], TurnRequest]
    goes_on: Next
    request: CreateRequest
    headers: Mapping[str, str]
    seal: Callable[[str], str]
    open: Callable[[str], bytes]

    def summarised(self, text: str) -> Compacted:
        """Return the context with this summary."""
        replay = self.context.summarised(text)
        return Compacted(self.seal(pack([replay], covers=True)), replay)

    def read(self, sealed: str) -> Compacted:
        """Return the context that a client, or a log, has kept; raises InvalidRequest."""
        return Compacted(sealed, self.open(sealed))


Plan = TurnRequest | Agenda | Compaction
"""How a response begins."""
