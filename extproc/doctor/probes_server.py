"""The probes of the server itself: errors, a client that leaves, and what it offers beside responses."""

from __future__ import annotations

import asyncio
import re

from engine.upstream.dialect import ChatDialect
from extproc.doctor.backend import Said, Unreachable
from extproc.doctor.findings import Finding, Verdict
from extproc.doctor.judge import NO_PARSER, VLLM
from extproc.doctor.probes import WEATHER, Bench
from extproc.doctor.rehearsal import Turn

_FIELDS = {"message", "type", "param", "code"}
_NO_SUCH_MODEL = "holdfast-doctor/no-such-model"
_CHAT = {"model": _NO_SUCH_MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
# How many requests are being worked on: vLLM, SGLang, llama.cpp.
_RUNNING = re.compile(
    r"^(?:vllm:num_requests_running|sglang:num_running_reqs|llamacpp:requests_processing)"
    r"(?:\{[^}]*\})? +([0-9.e+]+)",
    re.MULTILINE,
)
_LOOKS, _LOOK_SECONDS = 50, 0.1


async def error_shape(bench: Bench) -> Finding:
    """What an error looks like: here that of a model that does not exist."""
    body = {"model": _NO_SUCH_MODEL, "input": "hi", "stream": True}
    path = bench.choice.dialect(_NO_SUCH_MODEL).path
    theirs = await bench.backend.post(path, body if path != ChatDialect.path else _CHAT)
    if theirs.status == 200:
        return Finding(Verdict.UNSEEN, "any model's name is taken")
    turn = await bench.rehearsal().turn(**body)
    ours = turn.whole
    if ours is None or ours.status != theirs.status:
        shown = "a stream" if ours is None else ours.status
        return Finding(Verdict.BROKEN, f"the server's {theirs.status} becomes {shown}")
    if wrong := _unlike_the_api(theirs):
        return Finding(Verdict.REPAIRED, f"{theirs.status}: {wrong}")
    return Finding(Verdict.WORKS, f"{theirs.status}, as the API has it")


def _unlike_the_api(said: Said) -> str | None:
    error = said.fields.get("error")
    if not isinstance(error, dict) or not set(error) >= _FIELDS:
        return "the body lacks fields of the API's errors"
    if not isinstance(error["code"], str | None):
        return "its code is no string"
    return None


async def disconnect(bench: Bench) -> Finding:
    """A client leaves in the middle of a long answer: does the server stop generating?"""
    before = await _running(bench)
    turn = Turn()
    ask = "Write a very long story, of at least three thousand words, about a lighthouse."
    reading = asyncio.ensure_future(
        bench.rehearsal().turn(
            turn, model=bench.model, input=ask, stream=True, store=False, max_output_tokens=4096
        )
    )
    begun = asyncio.ensure_future(turn.begun.wait())
    try:
        await asyncio.wait({reading, begun}, return_when=asyncio.FIRST_COMPLETED)
        if not turn.begun.is_set():
            return Finding(Verdict.BROKEN, turn.error or "nothing came")
        during = await _running(bench)
    finally:
        begun.cancel()
        reading.cancel()
        await asyncio.gather(begun, reading, return_exceptions=True)
    if before is None or during is None:
        return Finding(Verdict.UNSEEN, "the server has no /metrics that would show it")
    if during <= before:
        return Finding(Verdict.UNSEEN, "the answer was over too soon")
    return await _stopped(bench, before)


async def _stopped(bench: Bench, before: float) -> Finding:
    for _ in range(_LOOKS):
        if (await _running(bench) or 0.0) <= before:
            return Finding(Verdict.WORKS, "generation stops when the client leaves")
        await asyncio.sleep(_LOOK_SECONDS)
    return Finding(
        Verdict.BROKEN,
        f"{_LOOKS * _LOOK_SECONDS:g} seconds after its client has left, the server still generates",
        advice="limit max_output_tokens: what nobody reads burns the model's time",
    )


async def _running(bench: Bench) -> float | None:
    try:
        said = await bench.backend.get("/metrics")
    except Unreachable:
        return None
    found = _RUNNING.findall(said.body.decode("utf-8", "replace")) if said.status == 200 else []
    return sum(map(float, found)) if found else None


async def tool_parser(bench: Bench) -> Finding:
    """Whether the server has a parser for this model's calls: /v1/responses does not say, chat does."""
    function = {key: value for key, value in WEATHER.items() if key != "type"}
    said = await bench.backend.post(
        "/v1/chat/completions",
        {
            "model": bench.model,
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": function}],
            "tool_choice": "auto",
            "max_tokens": 1,
        },
    )
    if said.status == 400 and b"tool-call-parser" in said.body:
        return Finding(
            Verdict.BROKEN,
            "no tool parser is set: calls arrive as text",
            (f"{VLLM}/29725",),
            NO_PARSER,
        )
    if said.status != 200:
        return Finding(Verdict.UNSEEN, f"/v1/chat/completions answers {said.status}")
    return Finding(Verdict.WORKS, "tools are taken")


async def tokenizer(bench: Bench) -> Finding:
    """The server's own tokenizer, as vLLM offers it."""
    said = await bench.backend.post("/tokenize", {"model": bench.model, "prompt": "Hello world"})
    count = said.fields.get("count")
    if said.status != 200 or not isinstance(count, int):
        return Finding(Verdict.UNSEEN, f"/tokenize answers {said.status}")
    return Finding(Verdict.WORKS, f"context length {said.fields.get('max_model_len')}")
