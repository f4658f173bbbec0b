"""One conversation over either dialect, without I/O: what the model was asked, and what came of it. Pure.

told = converse("chat", Conversation([turn("hi"), turn("and?")]))
told.turns[0].items                 the output items, ids numbered in order of appearance
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine import sse
from engine.api.json import read_object
from engine.api.request import parse_create
from engine.api.response_object import ResponseObject
from engine.errors import EngineError
from engine.ids import ItemIds
from engine.limits import Limits
from engine.ports import StoredItem
from engine.response.inputs import Begin, Failed, ModelAnswered, TurnEnded
from engine.response.machine import ResponseMachine
from engine.response.turn import TurnRequest
from engine.upstream.dialect import DIALECTS, TurnReader
from engine.upstream.refusal import refusal
from engine.upstream.rules import turn_rules
from extproc.demo import app as demo
from extproc.demo.rejection import Rejected
from tests.support.playback import NOW, Player
from tests.support.scripts import CHAT, Asked, Body, Stream

Fields = dict[str, Any]
Reply = Stream | Body | None


@dataclass(frozen=True)
class Turn:
    """A request, and what the model answers to it; None: what the demo model would.

    `less`: so many writes are missing at the end of a streamed answer, by dialect.
    """

    fields: Fields
    reply: Reply = None
    less: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """What came of a turn: items without ids, how it ended, and the whole stored object."""

    items: list[Any]
    ending: tuple[Any, ...]
    asked: Fields
    raw: bytes


def turn(
    given: Any, reply: Reply = None, *, less: Mapping[str, int] | None = None, **fields: Any
) -> Turn:
    """A turn with this input; calls that wait are answered first."""
    return Turn({"model": "m", "input": given, **fields}, reply, less or {})


def converse(dialect: str, turns: Sequence[Turn]) -> list[Told]:
    """Run the turns one after the other; each gets the history of those before it."""
    history: list[StoredItem] = []
    told: list[Told] = []
    for number, asked in enumerate(turns):
        ids = ItemIds(f"resp_{number:032x}")
        fields = {**asked.fields, "input": _answered(history, asked.fields["input"])}
        request = parse_create(read_object(json.dumps(fields).encode()), ids, Limits())
        new = [item for item in request.input if isinstance(item, StoredItem)]
        replays = [item.replay for item in [*history, *new] if item.replay is not None]
        body = DIALECTS[dialect].encode(request, replays)
        machine = ResponseMachine(ResponseObject(f"resp_{number}", NOW, request), ids, store=True)
        player = Player(machine)
        player.feed(Begin(TurnRequest(body)))
        reader = DIALECTS[dialect].open(turn_rules(request))
        sent = json.loads(body)
        ending = _run(player, reader, Asked(DIALECTS[dialect].path, sent, f"{number}"), asked)
        saved = player.played.saved
        output = saved.output if saved is not None else []
        told.append(Told(_without_ids(output), ending, sent, player.played.raw))
        history += [*new, *output]
    return told


def _answered(history: Iterable[StoredItem], given: Any) -> list[Any]:
    """Return the input with outputs for the calls that wait for one."""
    calls = {item.call_id for item in history if item.type == "function_call" and item.replay}
    done = {item.call_id for item in history if item.type == "function_call_output"}
    outputs = [
        {"type": "function_call_output", "call_id": call_id, "output": f"output {number}"}
        for number, call_id in enumerate(
            item.call_id for item in history if item.call_id in calls - done
        )
    ]
    if given is None:
        return outputs
    return [*outputs, *([{"role": "user", "content": given}] if isinstance(given, str) else given)]


def _run(player: Player, reader: TurnReader, asked: Asked, turn: Turn) -> tuple[Any, ...]:
    try:
        writes = _writes(asked, turn, reader, player)
    except Rejected as rejected:
        error = refusal(rejected.status, json.dumps(rejected.body).encode(), None)
        player.feed(Failed(NOW, error))
        return _shown(error)
    if isinstance(turn.reply, Body) and turn.reply.status != 200:
        error = refusal(turn.reply.status, turn.reply.make(asked), None)
        player.feed(Failed(NOW, error))
        return _shown(error)
    player.feed(ModelAnswered())
    _read(player, reader, writes, whole=isinstance(turn.reply, Body))
    outcome = reader.outcome
    assert outcome is not None
    if outcome.error is not None:
        player.feed(Failed(NOW, outcome.error))
        return _shown(outcome.error)
    player.feed(TurnEnded(NOW, outcome.usage, outcome.incomplete_reason))
    made = outcome.usage.output_tokens if outcome.usage else None
    return ("ended", outcome.incomplete_reason, made)


def _writes(asked: Asked, turn: Turn, reader: TurnReader, player: Player) -> list[bytes]:
    if isinstance(turn.reply, Body):
        return [turn.reply.make(asked)]
    if turn.reply is not None:
        writes = list(turn.reply.make(asked))
    else:
        speak = demo.complete if asked.path == CHAT else demo.respond
        writes = list(speak(dict(asked.body), asked.seed).frames)
    less = turn.less.get("chat" if asked.path == CHAT else "responses", 0)
    return writes[: len(writes) - less]


def _read(player: Player, reader: TurnReader, writes: Iterable[bytes], *, whole: bool) -> None:
    decoder = sse.Decoder(Limits().line_bytes)
    for write in writes:
        if whole:
            for content in reader.receive_whole(write):
                player.feed(content)
            return
        for event in decoder.feed(write):
            for content in reader.receive(event.data):
                player.feed(content)
        if reader.outcome is not None:
            return
    for content in reader.end():
        player.feed(content)


def _shown(error: EngineError) -> tuple[Any, ...]:
    return ("failed", type(error).__name__, error.status, error.code)


def _without_ids(items: Iterable[StoredItem]) -> list[Any]:
    shown = [msgspec.json.decode(item.item) for item in items]
    return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in shown]
