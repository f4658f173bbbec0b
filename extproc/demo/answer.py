"""What the demo model says to an ask: its parts, tokens and tool calls. Pure and deterministic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from extproc.demo.ask import Ask, Tool
from extproc.demo.schema import instance

# A long message is echoed only in part: enough to recognise it, not enough to wait for.
ECHO_WORDS = 40
QUOTE_CHARS = 2000

_TOKEN = re.compile(r"\s*\S+|\s+$")
_ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning, one token per delta."""

    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """Output text, one token per delta."""

    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; its arguments, or a custom tool's input, in deltas. No id: one is minted."""

    name: str
    deltas: tuple[str, ...]
    call_id: str | None = None
    custom: bool = False


Part = Thought | Text | Call


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that one model turn says. A delta is a token, so usage follows from the parts."""

    parts: tuple[Part, ...]
    input_tokens: int = 1
    cached_tokens: int = 0
    # The token limit was reached: the last part may be unfinished.
    cut_short: bool = False
    logprobs: int | None = None

    @property
    def output_tokens(self) -> int:
        return sum(len(part.deltas) for part in self.parts)

    @property
    def reasoning_tokens(self) -> int:
        return sum(len(part.deltas) for part in self.parts if isinstance(part, Thought))


def text(*deltas: str) -> Text:
    """A message of these deltas."""
    return Text(deltas)


def reasoning(*deltas: str) -> Thought:
    """A reasoning item of these deltas."""
    return Thought(deltas)


def call(name: str, *deltas: str, call_id: str | None = None, custom: bool = False) -> Call:
    """A tool call whose arguments come in these deltas; no delta for no arguments."""
    return Call(name, deltas, call_id, custom)


def tokens(words: str) -> tuple[str, ...]:
    """The demo's tokens: words, each with the white space before it."""
    return tuple(_TOKEN.findall(words))


def answer(ask: Ask) -> Answer:
    """The demo model's whole mind."""
    parts: list[Part] = []
    if ask.think:
        parts.append(Thought(tokens(_thought(ask))))
    parts += list(_calls(ask)) or [Text(tokens(_words(ask)))]
    full = Answer(tuple(parts), max(1, ask.input_tokens), logprobs=ask.logprobs)
    return full if ask.max_tokens is None else limited(full, ask.max_tokens)


def limited(full: Answer, budget: int) -> Answer:
    """The answer as a token limit leaves it."""
    if full.output_tokens <= budget:
        return full
    parts: list[Part] = []
    for part in full.parts:
        if budget <= 0:
            break
        parts.append(replace(part, deltas=part.deltas[:budget]))
        budget -= len(part.deltas)
    return replace(full, parts=tuple(parts), cut_short=True)


def _thought(ask: Ask) -> str:
    last = ask.user_texts[-1] if ask.user_texts else ""
    return (
        f"The user wrote {len(last.split())} words in turn {len(ask.user_texts)}. I answer briefly."
    )


def _words(ask: Ask) -> str:
    kind = (ask.format or {}).get("type", "text")
    if kind == "json_schema":
        schema = (ask.format or {}).get("schema") or _ANY_OBJECT
        return json.dumps(instance(schema), ensure_ascii=False)
    if kind == "json_object":
        return json.dumps({"answer": _prose(ask)}, ensure_ascii=False)
    return _prose(ask)


def _prose(ask: Ask) -> str:
    turn = f"(turn {len(ask.user_texts)})"
    if ask.outputs:
        quotes = "; ".join(f'"{output[:QUOTE_CHARS]}"' for output in ask.outputs)
        return f"The tools returned: {quotes} {turn}"
    seen = f" I see {ask.images} image{'s' if ask.images != 1 else ''}." if ask.images else ""
    return f"You said: {_echo(ask)}{seen} {turn}"


def _echo(ask: Ask) -> str:
    words = (ask.user_texts[-1] if ask.user_texts else "").split()
    if not words:
        return "nothing"
    return " ".join(words[:ECHO_WORDS]) + (" …" if len(words) > ECHO_WORDS else "")


def _calls(ask: Ask) -> Iterator[Call]:
    chosen = _chosen(ask)
    message = ask.user_texts[-1] if ask.user_texts else ""
    for tool in chosen if ask.parallel else chosen[:1]:
        yield Call(tool.name, tokens(_arguments(tool, message)), custom=tool.custom)


def _chosen(ask: Ask) -> list[Tool]:
    """The tools to call now. A forced choice is obeyed on every turn, as a real server obeys it."""
    if ask.choice == "none":
        return []
    if ask.choice == "named":
        return [tool for tool in ask.tools if tool.name == ask.forced][:1]
    mentioned = _mentioned(ask)
    # A tool that has answered since the user spoke is not called again: the loop has to end.
    pending = [tool for tool in mentioned if tool.name not in ask.called]
    if ask.choice == "required":
        return pending or mentioned[:1] or list(ask.tools[:1])
    return pending


def _mentioned(ask: Ask) -> list[Tool]:
    """The tools that the last user message names, in the order in which it names them."""
    message = ask.user_texts[-1] if ask.user_texts else ""
    found = [(_place(tool.name, message), at) for at, tool in enumerate(ask.tools)]
    return [ask.tools[at] for place, at in sorted(found) if place >= 0]


def _place(name: str, message: str) -> int:
    """Where the message names the tool, or -1; the last part of `server__tool` will do."""
    for spelling in (name, re.split(r"__|[./:]", name)[-1], name.replace("_", " ")):
        found = re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", message, re.IGNORECASE)
        if spelling and found:
            return found.end()
    return -1


def _arguments(tool: Tool, message: str) -> str:
    given = _given_arguments(tool, message)
    if tool.custom:
        return message if given is None else given
    if given is not None:
        return given
    # For the built-in tools of a gateway: a search for the user's own words, a program that runs.
    said = dict.fromkeys(("query", "queries", "q", "input"), message)
    words = {**said, "code": "print(6 * 7)"}
    made = instance({"type": "object", **tool.parameters}, words)
    return json.dumps(made if isinstance(made, Mapping) else {}, ensure_ascii=False)


def _given_arguments(tool: Tool, message: str) -> str | None:
    """A JSON object right behind the tool's name is taken as its arguments, word for word."""
    rest = message[max(0, _place(tool.name, message)) :].lstrip(" (:")
    if not rest.startswith("{"):
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    return rest[:end]
