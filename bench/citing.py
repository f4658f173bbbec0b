"""What citations cost a delta: reader and machine with sources to be cited, against the same without.

Where nothing was searched there is no reader of citations at all. One run, ratios.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from engine.api.json import read_object
from engine.api.request import parse_create
from engine.api.response_object import ResponseObject
from engine.context.owned_calls import call_and_output
from engine.context.sources import Found, Sources, numbered, told
from engine.ids import ItemIds
from engine.limits import Limits
from engine.ports import StoredItem
from engine.response.inputs import Begin, ModelAnswered
from engine.response.machine import ResponseMachine
from engine.response.turn import TurnRequest, TurnRules
from engine.upstream.citing import Citing
from engine.upstream.dialect import TurnReader
from engine.upstream.responses import ResponsesStream

_DELTAS = 20_000
_ROUNDS = 9
_ID = "resp_" + "0" * 32
_TEXTS = {
    "plain": [" a", " token", ",", "word"] * 10,
    "spaces at the end": ["a ", "token ", ", ", "word "] * 10,
    "a citation in 40": [*[" a", " token", ",", "word"] * 9, "x", " 【", "1", "】"],
}


async def run() -> None:
    """Print nanoseconds per delta, without and with."""
    found = [Found(f"file-{number}", f"{number}.txt", "text") for number in range(10)]
    replay = call_and_output("fs_1", "file_search", "{}", told(found, 1))
    call_id = numbered(1, len(found))
    sources = Sources.of([StoredItem("fs_1", "file_search_call", b"{}", replay, call_id)])
    for name, texts in _TEXTS.items():
        events = [_delta(text) for text in texts * (_DELTAS // len(texts))]
        pairs = [
            (_cost(events, _reader), _cost(events, lambda: Citing(_reader(), sources)))
            for _ in range(_ROUNDS)
        ]
        without, with_them = (min(costs) for costs in zip(*pairs, strict=True))
        ratio = with_them / without
        print(f"citing, {name:18} {without:6.0f} ns -> {with_them:6.0f} ns a delta: {ratio:.2f}x")


def _reader() -> TurnReader:
    return ResponsesStream(TurnRules(tools=True, declared=()))


def _cost(events: Iterable[bytes], open_reader: Callable[[], TurnReader]) -> float:
    request = parse_create(read_object(b'{"model":"m","input":"hi"}'), ItemIds(_ID), Limits())
    machine = ResponseMachine(ResponseObject(_ID, 0, request), ItemIds(_ID), store=False)
    machine.receive(Begin(TurnRequest(b"{}")))
    machine.receive(ModelAnswered())
    reader = open_reader()
    begun = time.perf_counter()
    for event in events:
        for content in reader.receive(event):
            machine.receive(content)
    return (time.perf_counter() - begun) / _DELTAS * 1e9


def _delta(text: str) -> bytes:
    place = {"item_id": "m", "output_index": 0, "content_index": 0}
    event = {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []}
    return json.dumps(event, ensure_ascii=False).encode()
