"""Everything that can happen to a response; the machine's only way in.

The content inputs (`ItemStarted` to `SummaryDelta`) are what a normaliser makes of a model server's
stream, whatever its dialect: one item after the other, deltas belonging to the item started last.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.api.response_object import Usage
from engine.errors import EngineError
from engine.ports import ToolOutcome
from engine.response.agenda import Listing
from engine.response.compaction import Compacted, Plan

ItemKind = Literal["message", "reasoning", "function_call"]


class Queued(msgspec.Struct, frozen=True):
    """The request is accepted and waits for a worker (`background: true`)."""


class Begin(msgspec.Struct, frozen=True):
    """The request is accepted, or its time in the queue is over; `turn` is the first to be asked for.

    An agenda instead makes all the turns of a response for which the gateway runs tools.
    """

    turn: Plan


class Fits(msgspec.Struct, frozen=True):
    """The context is short enough as it is."""


class ContextCompacted(msgspec.Struct, frozen=True):
    """The context was too long and is summarised; `usage` is what that took."""

    compacted: Compacted
    usage: Usage | None


class ToolsListed(msgspec.Struct, frozen=True):
    """What the providers offer, in the order of their declarations."""

    listings: tuple[Listing, ...]


class ModelAnswered(msgspec.Struct, frozen=True):
    """The model server answered the turn with a 200: what follows are its tokens."""


class WaitedLong(msgspec.Struct, frozen=True):
    """The model server has not answered yet and the client should not wait in silence (rule R16)."""


class ItemStarted(msgspec.Struct, frozen=True):
    """An output item begins, and the one before it is over; `name` is a function call's."""

    kind: ItemKind
    name: str = ""


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """More text of the open message; `logprobs` is a JSON array, b"[]" for none."""

    text: str
    logprobs: bytes = b"[]"


class Cited(msgspec.Struct, frozen=True):
    """The open message cites a file here; `text` is the mark that the model wrote, which is not shown.

    A mark that cites several files is in the first of them, and the others have none.
    """

    text: str
    file_id: str
    filename: str


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the open message's refusal."""

    text: str


class ArgumentsDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the open function call's arguments."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the open reasoning item's text."""

    text: str


class SummaryDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the open reasoning item's summary."""

    text: str


class UpstreamStarted(msgspec.Struct, frozen=True):
    """The model server began an item of a tool that it runs itself; `key` is what the others name it by.

    `tail`: the item's JSON behind its id, from a comma on (`engine.api.upstream_items`).
    """

    key: str
    kind: str
    tail: bytes


class UpstreamEvent(msgspec.Struct, frozen=True):
    """An event of such an item; `tail`: its own fields, from a comma on, b"" for none."""

    key: str
    kind: str
    tail: bytes


class UpstreamEnded(msgspec.Struct, frozen=True):
    """Such an item is over; `tail` as for its beginning."""

    key: str
    tail: bytes


class ItemEnded(msgspec.Struct, frozen=True):
    """The open item is over, with this status, and what follows is not known yet.

    Said by a redriven log only (`engine.response.redrive`): of a live stream it is never known earlier than
    what follows. `sealed` is what it says sealed, of a reasoning item: sealed anew it would be another text.
    """

    status: str
    sealed: str | None = None


class Resumed(msgspec.Struct, frozen=True):
    """The worker is gone that ran this; `turn` is asked for again.

    What was made so far stays shown, and no later turn is sent it: the model makes it anew. But finished
    calls of owned tools, and what led to them, are kept: they are not made twice.
    """

    turn: Plan


class ToolEnded(msgspec.Struct, frozen=True):
    """A call of an owned tool is over; `item_id` is its item."""

    item_id: str
    outcome: ToolOutcome


class RoundEnded(msgspec.Struct, frozen=True):
    """All the owned calls of a turn are over. `at`: Unix seconds."""

    at: int


class TurnEnded(msgspec.Struct, frozen=True):
    """The model's turn is over; `incomplete_reason` is set if it was cut short. `at`: Unix seconds."""

    at: int
    usage: Usage | None
    incomplete_reason: str | None = None


class Failed(msgspec.Struct, frozen=True):
    """The run cannot go on: the model or the store failed, or a bound was passed. `at`: Unix seconds."""

    at: int
    error: EngineError


class CutShort(msgspec.Struct, frozen=True):
    """There is to be no more: the response ends incomplete with what was made (rule P3).

    `reason` is `client_disconnected`, `detached_limit` or `max_seconds`.
    """

    reason: str


class Cancelled(msgspec.Struct, frozen=True):
    """Somebody asked for the response's end: it ends cancelled, with what was made."""


class Saved(msgspec.Struct, frozen=True):
    """The store holds the terminal state."""


class SaveFailed(msgspec.Struct, frozen=True):
    """The store could not take the terminal state. `at`: Unix seconds."""

    at: int
    error: EngineError


Passed = UpstreamStarted | UpstreamEvent | UpstreamEnded
Content = (
    ItemStarted
    | TextDelta
    | Cited
    | RefusalDelta
    | ArgumentsDelta
    | ReasoningDelta
    | SummaryDelta
    | Passed
)
Ending = TurnEnded | Failed | CutShort | Cancelled
Input = (
    Queued
    | Begin
    | Fits
    | ContextCompacted
    | ToolsListed
    | ModelAnswered
    | WaitedLong
    | Content
    | ItemEnded
    | Resumed
    | ToolEnded
    | RoundEnded
    | Ending
    | Saved
    | SaveFailed
)
