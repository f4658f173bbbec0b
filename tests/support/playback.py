"""A model server's stream through normaliser and machine, as `engine.loop` does it, without I/O. Pure.

played = play(transcripts.load("0.18.1/parallel").frames, tools=["get_weather", "get_time"])
played.raw                          what the client was sent
played.saved                        what the store was given
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from engine import sse
from engine.api.json import read_object
from engine.api.request import CreateRequest, parse_create
from engine.api.response_object import ResponseObject
from engine.errors import EngineError
from engine.ids import ItemIds
from engine.limits import Limits
from engine.response.effects import (
    CallModel,
    Close,
    Compact,
    Effect,
    ListTools,
    Refuse,
    RunTools,
    Save,
    Send,
)
from engine.response.inputs import Begin, Failed, Input, ModelAnswered, Saved, SaveFailed, TurnEnded
from engine.response.machine import ResponseMachine
from engine.response.turn import TurnRequest, TurnRules
from engine.upstream.responses import ResponsesStream

NOW = 1_700_000_000
RESPONSE_ID = "resp_" + "0f" * 16


@dataclass
class Played:
    """What came out: the client's bytes, the model's request, the stored state, the end."""

    frames: list[bytes] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)
    saved: Save | None = None
    closed: Close | None = None
    refused: EngineError | None = None

    @property
    def raw(self) -> bytes:
        """What the client was sent."""
        return b"".join(self.frames)

    @property
    def response(self) -> dict[str, Any]:
        """The whole object, as a client that does not stream gets it."""
        assert self.closed is not None
        response: dict[str, Any] = json.loads(self.closed.body)
        return response


class Player:
    """Carries out what a machine asks for; `save_error` is what the store then answers."""

    def __init__(self, machine: ResponseMachine, *, save_error: EngineError | None = None) -> None:
        self.machine = machine
        self.played = Played()
        self._save_error = save_error

    def feed(self, received: Input) -> None:
        """Give the machine an input and carry out its effects, as far as they go."""
        for effect in self.machine.receive(received):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        played = self.played
        match effect:
            case Send(frames):
                played.frames.append(frames)
            case CallModel(turn):
                played.asked.append(turn.body)
            case Compact() | ListTools() | RunTools():
                raise AssertionError("this player has no tools")
            case Save():
                played.saved = effect
                assert effect.ending.frames not in played.raw
                error = self._save_error
                self.feed(Saved() if error is None else SaveFailed(NOW, error))
            case Refuse(error):
                played.refused = error
            case Close():
                played.closed = effect


def request(**fields: Any) -> CreateRequest:
    """Return a checked request; model `m` and input `hi` unless given."""
    body = json.dumps({"model": "m", "input": "hi", "stream": True, **fields}).encode()
    return parse_create(read_object(body), ItemIds(RESPONSE_ID), Limits())


def machine(asked: CreateRequest | None = None, *, store: bool = True) -> ResponseMachine:
    """Return the machine of a request that was just accepted."""
    shape = ResponseObject(RESPONSE_ID, NOW, asked if asked is not None else request())
    return ResponseMachine(shape, ItemIds(RESPONSE_ID), store=store)


def functions(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return declarations of functions with these names."""
    return [{"type": "function", "name": name} for name in names]


def play(
    chunks: Iterable[bytes],
    *,
    tools: Iterable[str] = (),
    cut: bool = False,
    rules: TurnRules | None = None,
    store: bool = True,
    save_error: EngineError | None = None,
    before: Callable[[Player], None] | None = None,
) -> Played:
    """Play one turn whose body comes in these chunks.

    `cut`: the connection breaks behind the last one. `before` is called before the model answers.
    """
    declared = list(tools)
    asked = request(tools=functions(declared))
    player = Player(machine(asked, store=store), save_error=save_error)
    player.feed(Begin(TurnRequest(b"{}")))
    if before is not None:
        before(player)
    player.feed(ModelAnswered())
    upstream = ResponsesStream(rules if rules is not None else TurnRules(tools=bool(declared)))
    read(player, upstream, chunks, cut=cut)
    return player.played


def read(
    player: Player, upstream: ResponsesStream, chunks: Iterable[bytes], *, cut: bool = False
) -> None:
    """Read a turn to its end, as the loop does: nothing is read behind the terminal event."""
    decoder = sse.Decoder(Limits().line_bytes)
    for chunk in chunks:
        for event in decoder.feed(chunk):
            for content in upstream.receive(event.data):
                player.feed(content)
        if upstream.outcome is not None:
            break
    outcome = upstream.outcome
    if outcome is None and cut:
        broken = EngineError("The connection to the model server broke off.")
        player.feed(Failed(NOW, broken))
        return
    for content in upstream.end():
        player.feed(content)
    outcome = upstream.outcome
    assert outcome is not None
    if outcome.error is not None:
        player.feed(Failed(NOW, outcome.error))
    else:
        player.feed(TurnEnded(NOW + 1, outcome.usage, outcome.incomplete_reason))
