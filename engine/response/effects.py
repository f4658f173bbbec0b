"""Everything that a response can ask for, the machine's only way out; `engine.loop` carries it out."""

from __future__ import annotations

import msgspec

from engine.errors import EngineError
from engine.ports import AskedApproval, EventBatch, StoredItem
from engine.response.compaction import Compaction
from engine.response.turn import TurnRequest


class CallModel(msgspec.Struct, frozen=True):
    """Send this request; answered by ModelAnswered, content, and what ends the turn."""

    turn: TurnRequest


class Compact(msgspec.Struct, frozen=True):
    """Look whether the context is too long, and sum it up; answered by Fits, or ContextCompacted."""

    wanted: Compaction


class ListTools(msgspec.Struct, frozen=True):
    """Ask every provider what it offers; answered by ToolsListed, or by what ends the response."""


class ToolCall(msgspec.Struct, frozen=True):
    """One call of an owned tool, by the tool's own name; `refused`: why it is not to be run."""

    item_id: str
    label: str
    name: str
    arguments: bytes
    refused: str | None = None


class RunTools(msgspec.Struct, frozen=True):
    """Run these side by side (rule T2); answered by a ToolEnded for each, then RoundEnded."""

    calls: tuple[ToolCall, ...]


class Send(msgspec.Struct, frozen=True, gc=False):
    """Release these whole events, the last of which has the number `last`.

    `held`: there are notes among them that stay in the log (`engine.response.notes`).
    """

    frames: bytes
    last: int
    held: bool = False


class Save(msgspec.Struct, frozen=True):
    """Write the terminal state; answered by Saved or SaveFailed. Nothing of it is out yet (rule P1).

    `ending` are the events that Saved releases: an `error` event if there was one, and the terminal event.
    `asked` are the requests for consent in the output.
    """

    status: str
    head: bytes
    output: list[StoredItem]
    ending: EventBatch
    asked: tuple[AskedApproval, ...] = ()


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an HTTP error: the client has heard nothing of this response, and nothing of it stays."""

    error: EngineError


class Close(msgspec.Struct, frozen=True):
    """The response is over. `body` is the whole object; `error` is set if it failed."""

    status: str
    body: bytes
    error: EngineError | None = None


Effect = Compact | CallModel | ListTools | RunTools | Send | Save | Refuse | Close
