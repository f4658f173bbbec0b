"""The probes that let the model speak: each asks one thing, through Holdfast, and judges what came."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.api.json import is_json_object
from engine.ports import ModelClient
from engine.upstream.choice import Choice
from engine.upstream.shapes import TOKENS
from extproc.doctor.backend import Backend
from extproc.doctor.findings import Finding, Verdict
from extproc.doctor.judge import (
    NO_PARSER,
    NO_REASONING_PARSER,
    VLLM,
    Check,
    NotSeen,
    Wrong,
    items_of,
    judge,
    text_of,
)
from extproc.doctor.rehearsal import Rehearsal
from extproc.doctor.stream_faults import TRUNCATION, Fault

Json = dict[str, Any]
Response = Mapping[str, Any]


class Bench(msgspec.Struct, frozen=True):
    """What probes work with: the server, directly and through Holdfast, and the model's name."""

    backend: Backend
    client: ModelClient
    model: str
    deadline: float
    choice: Choice

    def rehearsal(self) -> Rehearsal:
        """Return a Holdfast in front of the server, with nothing stored yet."""
        return Rehearsal(self.client, self.choice)

    async def ask(
        self, check: Check, about: Sequence[Fault] | None = None, /, **body: Any
    ) -> Finding:
        """Run one turn, streamed, and judge it; `about` as in `judge`."""
        turn = await self.rehearsal().turn(**{"model": self.model, "stream": True, **body})
        return judge(turn, check, about)


Probe = Callable[[Bench], Awaitable[Finding]]


def _tool(name: str, what: str, **properties: str) -> Json:
    schema = {
        "type": "object",
        "properties": {key: {"type": "string", "description": d} for key, d in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "description": what, "parameters": schema}


WEATHER = _tool("get_weather", "Current weather of a city.", city="Name of the city")
TIME = _tool("get_time", "Current time in a time zone.", tz="A time zone such as CET")
PING = _tool("ping", "Checks that the system is alive. Takes no arguments.")
# Fewer than any model needs for what it is asked then.
_FEW = 8
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


# -- what is said ----------------------------------------------------------------------------------------


async def whole_text(bench: Bench) -> Finding:
    """An answer without a stream."""
    return await bench.ask(_has_text, input="Say hello in one short sentence.", stream=False)


async def streamed_text(bench: Bench) -> Finding:
    """The same as a stream."""
    return await bench.ask(_has_text, input="Say hello in one short sentence.")


async def usage(bench: Bench) -> Finding:
    """Token counts of a stream."""
    return await bench.ask(_has_usage, [], input="Say hello in one short sentence.")


async def truncation(bench: Bench) -> Finding:
    """An answer that is cut by max_output_tokens."""
    ask = "Count from one to one hundred in words, without stopping."
    return await bench.ask(_is_cut, [TRUNCATION], input=ask, max_output_tokens=_FEW)


async def reasoning(bench: Bench) -> Finding:
    """Thinking as an item of its own."""
    ask = "Think step by step: is 91 a prime number? Answer yes or no."
    return await bench.ask(_has_reasoning, input=ask, reasoning={"effort": "low"})


async def structured_output(bench: Bench) -> Finding:
    """An answer that must follow a JSON schema."""
    named = {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}
    return await bench.ask(
        _follows_schema, [], input="Ada is 36 years old. Describe her.", text={"format": named}
    )


def _has_text(response: Response) -> str:
    said = text_of(response)
    if not said:
        raise Wrong(f"no text came; the response is {response.get('status')}")
    return f"{len(said)} characters"


def _has_usage(response: Response) -> str:
    told = response.get("usage") or {}
    read, written = told.get("input_tokens"), told.get("output_tokens")
    if not read or not written:
        raise Wrong("the server does not tell how many tokens it read and wrote")
    return f"{read} tokens read, {written} written"


def _is_cut(response: Response) -> str:
    if response.get("status") == "completed":
        raise NotSeen(f"the model ended by itself within {_FEW} tokens, or the limit is ignored")
    reason = (response.get("incomplete_details") or {}).get("reason")
    if reason != "max_output_tokens":
        raise Wrong(f"the response is {response.get('status')}, for {reason}")
    return "told as incomplete"


def _has_reasoning(response: Response) -> str:
    if "<think>" in text_of(response):
        raise Wrong("thinking arrives as text", advice=NO_REASONING_PARSER)
    items = items_of(response, "reasoning")
    if not items:
        raise NotSeen("the model did not think, or the server does not show it")
    details = (response.get("usage") or {}).get("output_tokens_details") or {}
    if not details.get("reasoning_tokens"):
        return f"an item of its own; its tokens are counted as 0 ({VLLM}/33512)"
    return f"an item of its own, {details['reasoning_tokens']} tokens"


def _follows_schema(response: Response) -> str:
    said = text_of(response)
    try:
        found = json.loads(said)
    except ValueError:
        found = None
    if not isinstance(found, dict) or set(found) != {"name", "age"}:
        raise Wrong(
            f"the answer does not follow the schema: {said[:60]!r}",
            advice="with a reasoning parser vLLM may not enforce it: turn thinking off for such requests",
            issue=f"{VLLM}/44012",
        )
    return "follows its schema"


# -- what is called --------------------------------------------------------------------------------------


async def tool_call(bench: Bench) -> Finding:
    """One call of a function."""
    ask = "What is the weather in Paris? Call the tool get_weather."
    return await _called(bench, _calls("get_weather"), input=ask, tools=[WEATHER])


async def parallel_calls(bench: Bench) -> Finding:
    """Two calls in one turn."""
    ask = (
        "Tell me the weather in Paris and the time in CET. Call both tools now, get_weather and "
        "get_time, at the same time."
    )
    return await _called(bench, _calls("get_weather", "get_time"), input=ask, tools=[WEATHER, TIME])


async def call_without_arguments(bench: Bench) -> Finding:
    """A call of a function that takes none."""
    ask = "Check that the system is alive: call the tool ping."
    return await _called(bench, _calls("ping"), input=ask, tools=[PING])


async def answer_to_a_call(bench: Bench) -> Finding:
    """The turn behind a call: its output given back, by previous_response_id."""
    rehearsal = bench.rehearsal()
    ask = "What is the weather in Paris? Call the tool get_weather."
    asked = {"model": bench.model, "tools": [WEATHER]}
    first = await rehearsal.turn(**asked, input=ask)
    calls = items_of(first.response, "function_call")
    if not calls:
        return Finding(Verdict.UNSEEN, "the model did not call")
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny, 21 degrees."}
        for call in calls
    ]
    previous = first.response["id"]
    second = await rehearsal.turn(
        **asked, input=outputs, previous_response_id=previous, stream=True, tool_choice="none"
    )
    return judge(second, _has_text)


async def _called(bench: Bench, check: Check, **body: Any) -> Finding:
    """Let the model choose to call; where it does not, make it."""
    found = await bench.ask(check, **body)
    if found.verdict is Verdict.UNSEEN:
        return await bench.ask(check, **body, tool_choice="required")
    return found


def _calls(*names: str) -> Check:
    def check(response: Response) -> str:
        said = text_of(response)
        if any(token in said for token in TOKENS):
            raise Wrong("calls arrive as text", advice=NO_PARSER, issue=f"{VLLM}/29725")
        calls = items_of(response, "function_call")
        made = [str(call.get("name")) for call in calls]
        if missing := [name for name in names if name not in made]:
            raise NotSeen(f"the model did not call {' and '.join(missing)}")
        for call in calls:
            if not is_json_object(str(call.get("arguments"))):
                raise Wrong(f"the arguments of {call.get('name')} are no JSON object")
        return " and ".join(made)

    return check
