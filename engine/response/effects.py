"""Everything that a response can ask for, the machine's only way out; `engine.loop` carries it out."""

from __future__ import annotations

import msgspec

from engine.errors import EngineError
from engine.ports import StoredItem


class CallModel(msgspec.Struct, frozen=True):
    """Send this request; answered by ModelAnswered, content, and TurnEnded or Failed."""

    body: bytes


class Send(msgspec.Struct, frozen=True, gc=False):
    """Write these whole events to a client that streams."""

    frames: bytes


class Save(msgspec.Struct, frozen=True):
    """Write the terminal state; answered by Saved or SaveFailed. Nothing of it is out yet (rule P1)."""

    status: str
    head: bytes
    output: list[StoredItem]


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an HTTP error: the client has heard nothing of this response, and nothing of it stays."""

    error: EngineError


class Close(msgspec.Struct, frozen=True):
    """The response is over. `body` is the whole object; `error` is set if it failed."""

    status: str
    body: bytes
    error: EngineError | None = None


Effect = CallModel | Send | Save | Refuse | Close
