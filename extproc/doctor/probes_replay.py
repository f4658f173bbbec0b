"""The probes of turn two: every kind of item that a history can hold, sent back to the server.

Each is sent twice: as an SDK that keeps its own history would, and as Holdfast does (rule M4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from extproc.doctor.findings import Finding, Verdict
from extproc.doctor.judge import VLLM
from extproc.doctor.probes import WEATHER, Bench, Probe

Json = dict[str, Any]

# One black pixel.
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
_MOST_TOKENS = 16


class Shape(msgspec.Struct, frozen=True):
    """Items of a history under a name; `optional`: not every model takes them."""

    name: str
    items: Sequence[Json]
    optional: bool = False


def _said(*content: Json) -> Json:
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": list(content),
    }


def _output_text(words: str) -> Json:
    return {"type": "output_text", "text": words, "annotations": [], "logprobs": None}


_CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": '{"city": "Paris"}',
    "status": None,
}
_OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "Sunny."}
_THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "The user greets me."}],
    "encrypted_content": None,
    "status": None,
}

SHAPES = (
    Shape("message", [_said(_output_text("Hello!"))]),
    Shape("two parts", [_said(_output_text("Hel"), _output_text("lo!"))]),
    Shape("bare message", [{"role": "assistant", "content": [_output_text("Hello!")]}]),
    Shape("refusal", [_said({"type": "refusal", "refusal": "I cannot do that."})]),
    Shape("reasoning", [_THOUGHT, _said(_output_text("Hello!"))]),
    Shape("summary only", [
        {**_THOUGHT, "content": None, "summary": [{"type": "summary_text", "text": "A greeting."}]},
        _said(_output_text("Hello!")),
    ]),
    Shape("call", [_CALL, _OUTPUT]),
    Shape("call without arguments", [{**_CALL, "arguments": ""}, _OUTPUT]),
    Shape("output as a list", [
        _CALL, {**_OUTPUT, "output": [{"type": "input_text", "text": "Sunny."}]},
    ]),
    Shape("image", [
        {"role": "user", "content": [{"type": "input_image", "image_url": _PIXEL}]},
    ], optional=True),
)  # fmt: skip
_BEFORE = {"role": "user", "content": "Hello."}
_AFTER = {"role": "user", "content": "Thank you. Say goodbye."}


def replay(shape: Shape) -> Probe:
    """Return the probe of one kind of item."""

    async def probe(bench: Bench) -> Finding:
        body: Json = {
            "model": bench.model,
            "input": [_BEFORE, *shape.items, _AFTER],
            "tools": [WEATHER],
            "max_output_tokens": _MOST_TOKENS,
        }
        raw = await bench.backend.post("/v1/responses", {**body, "store": False})
        turn = await bench.rehearsal().turn(**body)
        if turn.response.get("status") not in ("completed", "incomplete"):
            detail = turn.error or "no answer came"
            return Finding(Verdict.UNSEEN if shape.optional else Verdict.BROKEN, detail)
        if raw.status != 200:
            return Finding(
                Verdict.REPAIRED, f"refused with {raw.status} as it stands", (f"{VLLM}/33089",)
            )
        return Finding(Verdict.WORKS, "taken as it stands")

    return probe
