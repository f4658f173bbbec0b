"""What a request asks of the demo model, read from either wire into one shape. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]

# What an image costs in input tokens. Any constant does: usage only has to grow with the input.
IMAGE_TOKENS = 64

_THINK = re.compile(r"\bthink\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call; a custom tool takes free text instead of JSON arguments."""

    name: str
    parameters: Mapping[str, Any]
    custom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, reduced to what decides the answer."""

    user_texts: tuple[str, ...] = ()
    images: int = 0
    # Since the last user message: the tools already called, and what they returned.
    called: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    # "auto", "none", "required", or "named" with the tool's name in `forced`.
    choice: str = "auto"
    forced: str | None = None
    parallel: bool = True
    think: bool = False
    format: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    # How many alternatives per token; None when no logprobs were asked for.
    logprobs: int | None = None
    input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """One entry of the input: a message by its role, or half of a tool call (call, output)."""

    role: str
    text: str
    images: int = 0


def from_responses(body: Body) -> Ask:
    """Reads a `POST /v1/responses` body that has passed validation."""
    said = list(_responses_input(body.get("input", "")))
    effort = (body.get("reasoning") or {}).get("effort")
    wants_logprobs = "message.output_text.logprobs" in (body.get("include") or ())
    choice, forced = _choice(body.get("tool_choice"))
    return _ask(
        said,
        tools=tuple(_responses_tools(body.get("tools") or ())),
        choice=choice,
        forced=forced,
        parallel=body.get("parallel_tool_calls") is not False,
        think=_thinks(effort, said) and body.get("include_reasoning") is not False,
        format=(body.get("text") or {}).get("format"),
        max_tokens=body.get("max_output_tokens"),
        logprobs=(body.get("top_logprobs") or 0) if wants_logprobs else None,
        input_tokens=_count(said) + len((body.get("instructions") or "").split()),
    )


def from_chat(body: Body) -> Ask:
    """Reads a `POST /v1/chat/completions` body."""
    said = [entry for message in body["messages"] for entry in _chat_message(message)]
    choice, forced = _choice(body.get("tool_choice"))
    return _ask(
        said,
        tools=tuple(_chat_tools(body.get("tools") or ())),
        choice=choice,
        forced=forced,
        parallel=body.get("parallel_tool_calls") is not False,
        think=_thinks(body.get("reasoning_effort"), said),
        format=_chat_format(body.get("response_format")),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        logprobs=(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
        input_tokens=_count(said),
    )


def _ask(said: list[Said], **fields: Any) -> Ask:
    users = [at for at, entry in enumerate(said) if entry.role == "user"]
    since = said[users[-1] :] if users else said
    return Ask(
        user_texts=tuple(said[at].text for at in users),
        images=sum(entry.images for entry in said),
        called=tuple(entry.text for entry in since if entry.role == "call"),
        outputs=tuple(entry.text for entry in since if entry.role == "output"),
        **fields,
    )


def _count(said: Iterable[Said]) -> int:
    # One more per entry, as a chat template's markup would cost.
    return sum(1 + len(entry.text.split()) + IMAGE_TOKENS * entry.images for entry in said)


def _thinks(effort: object, said: list[Said]) -> bool:
    if effort is not None:
        return effort != "none"
    users = [entry.text for entry in said if entry.role == "user"]
    return bool(users) and _THINK.search(users[-1]) is not None


def _responses_input(given: str | list[dict[str, Any]]) -> Iterable[Said]:
    if isinstance(given, str):
        yield Said("user", given)
        return
    for item in given:
        yield from _responses_item(item)


def _responses_item(item: Body) -> Iterable[Said]:
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call"):
        yield Said("call", item["name"])
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield Said("output", *_content(item.get("output")))
    elif kind == "reasoning":
        yield Said("reasoning", *_content(item.get("content")))
    else:
        yield Said(item["role"], *_content(item.get("content")))


def _chat_message(message: Body) -> Iterable[Said]:
    role = "output" if message["role"] == "tool" else message["role"]
    if message.get("content") is not None:
        yield Said(role, *_content(message["content"]))
    for call in message.get("tool_calls") or ():
        yield Said("call", call["function"]["name"])


def _content(content: str | list[dict[str, Any]] | None) -> tuple[str, int]:
    """The text of a content field and the number of its images."""
    if content is None or isinstance(content, str):
        return content or "", 0
    texts = [part.get("text") or part.get("refusal") or "" for part in content]
    images = sum(part.get("type") in ("input_image", "image_url") for part in content)
    return " ".join(text for text in texts if text), images


def _responses_tools(tools: Iterable[Body]) -> Iterable[Tool]:
    for tool in tools:
        # Like vLLM: a hosted tool is accepted, and the model is never shown it.
        if tool["type"] in ("function", "custom"):
            yield Tool(tool["name"], tool.get("parameters") or {}, tool["type"] == "custom")


def _chat_tools(tools: Iterable[Body]) -> Iterable[Tool]:
    for tool in tools:
        function = tool["function"]
        yield Tool(function["name"], function.get("parameters") or {})


def _choice(choice: str | Body | None) -> tuple[str, str | None]:
    if choice is None or isinstance(choice, str):
        return choice or "auto", None
    name = choice.get("name") or (choice.get("function") or {}).get("name")
    # `allowed_tools` and hosted choices are opaque to vLLM: the model chooses as with "auto".
    if choice.get("type") in ("function", "custom") and name:
        return "named", name
    return "auto", None


def _chat_format(response_format: Body | None) -> Mapping[str, Any] | None:
    if response_format is None or response_format.get("type") != "json_schema":
        return response_format
    return {"type": "json_schema", **response_format["json_schema"]}
