"""What a model is asked for a summary of, and what the summary takes the place of. Pure.

What is new, which the model is to answer, stays as it is: the user's messages and outputs of tools at the
end, those with their calls. So do instructions at the beginning. What is between them is summarised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from engine.api.json import encode
from engine.api.request import CreateRequest
from engine.api.tool_choice import ToolChoice
from engine.context.compacted import summary_message

PROMPT = """\
Write a summary of the conversation so far. It will take the conversation's place: whoever goes on has \
nothing else. Keep what the user wants and has decided, standing instructions and preferences, facts, names, \
numbers, identifiers and paths exactly as they were given, what was done and what came of it, results of \
tools that may be needed again, and what is still open. Do not answer the user, do not call tools, do not \
invent. \
Write the summary alone, in the conversation's language."""
"""What asks for a summary, unless the settings have another text."""

# What was asked of the answer's form or length is not meant for the summary.
_KEPT = (
    "cache_salt", "chat_template_kwargs", "include_reasoning", "instructions", "mm_processor_kwargs",
    "model", "priority", "reasoning", "seed", "vllm_xargs",
)  # fmt: skip
_INSTRUCTIONS = ("system", "developer")


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    call_id: str = ""

    @property
    def given(self) -> bool:
        """True for what does not come from the model."""
        return self.type == "function_call_output" or self.role in ("user", *_INSTRUCTIONS)


_read = msgspec.json.Decoder(list[_Item]).decode


def _items(raw: bytes) -> list[_Item]:
    # One stored item may be replayed as several.
    return _read(b"[%b]" % raw)


class Divided(msgspec.Struct, frozen=True):
    """Replayed items: instructions, what a summary may stand for, and what stays."""

    leading: Sequence[bytes]
    covered: Sequence[bytes]
    kept: Sequence[bytes]

    @property
    def whole(self) -> list[bytes]:
        """All of it."""
        return [*self.leading, *self.covered, *self.kept]

    def summarised(self, text: str) -> bytes:
        """Return what the model is sent with a summary in the place of what is covered."""
        return b",".join([*self.leading, summary_message(text), *self.kept])


def divided(replay: Sequence[bytes]) -> Divided:
    """Divide what a model is sent; nothing is covered where the model has said nothing yet that could be."""
    first = 0
    while first < len(replay) and all(i.role in _INSTRUCTIONS for i in _items(replay[first])):
        first += 1
    place = _question_from(replay, first, _new_from(replay, first))
    if all(item.given for raw in replay[first:place] for item in _items(raw)):
        place = first
    return Divided(replay[:first], replay[first:place], replay[place:])


def _new_from(replay: Sequence[bytes], first: int) -> int:
    """Return where that begins which the model has not seen, with the calls that it answers."""
    place, uncalled, called = len(replay), set[str](), False
    while place > first:
        items = _items(replay[place - 1])
        if not uncalled and (called or not all(item.given for item in items)):
            break
        for item in reversed(items):
            if item.type == "function_call_output":
                uncalled.add(item.call_id)
            elif item.type == "function_call":
                uncalled.discard(item.call_id)
                called = True
        place -= 1
    return place


def _question_from(replay: Sequence[bytes], first: int, place: int) -> int:
    """Return where that begins which led to the call at a place: the user's message, the model's thought."""
    if place == len(replay) or _items(replay[place])[0].type != "function_call":
        return place
    if place > first and _items(replay[place - 1])[0].type == "reasoning":
        place -= 1
    while place > first and all(item.role == "user" for item in _items(replay[place - 1])):
        place -= 1
    return place


def summary_request(request: CreateRequest, most_tokens: int | None) -> CreateRequest:
    """Return the request of a summary: the same model and instructions, and no tools."""
    values = {name: request.values[name] for name in _KEPT if name in request.values}
    if most_tokens is not None:
        values["max_output_tokens"] = most_tokens
    return msgspec.structs.replace(
        request,
        values=values,
        tools=(),
        tool_choice=ToolChoice(),
        parallel_tool_calls=True,
        logprobs=False,
    )


def asking(request: CreateRequest, replay: Iterable[bytes], prompt: str) -> list[bytes]:
    """Return what the model is sent to get a summary of the items."""
    return [*request.preface, *replay, encode({"role": "user", "content": prompt})]
