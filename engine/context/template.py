"""Prompt templates: `{{name}}` in instructions gives way to a value; the rest of a template is a request.

One pass: what a value says is text, also where it looks like a placeholder. Anything between braces that is
no name stays as it is, so that templates may speak of code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*\}\}")

Value = str | dict[str, object]
"""What stands for a variable: text, or a content part (`input_image`, `input_file`)."""

# Given in the request and in the template, these are joined key by key; of anything else the request's wins.
_JOINED = ("text", "reasoning", "metadata")


def placeholders(instructions: object) -> Iterator[tuple[str, str, bool]]:
    """Yield each placeholder's name, the path of the text it stands in, and whether only text fits there."""
    if isinstance(instructions, str):
        yield from ((name, "instructions", True) for name in PLACEHOLDER.findall(instructions))
        return
    for index, message in enumerate(_list(instructions)):
        if isinstance(message, dict):
            yield from _of_message(message, f"instructions[{index}].content")


def _of_message(message: Mapping[str, object], path: str) -> Iterator[tuple[str, str, bool]]:
    plain = message.get("role") == "assistant"
    content = message.get("content")
    if isinstance(content, str):
        yield from ((name, path, plain) for name in PLACEHOLDER.findall(content))
    for index, part in enumerate(_list(content)):
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            where = f"{path}[{index}].text"
            yield from ((name, where, plain) for name in PLACEHOLDER.findall(text))


def render(instructions: object, values: Mapping[str, Value]) -> object:
    """Return instructions, a string or a list of messages, with values in place of the placeholders.

    All of them have to have a value, and one that fits.
    """
    if isinstance(instructions, str):
        return _text(instructions, values)
    if not isinstance(instructions, list):
        return instructions
    return [
        {**message, "content": _content(message, values)} if isinstance(message, dict) else message
        for message in instructions
    ]


def _content(message: Mapping[str, object], values: Mapping[str, Value]) -> object:
    content = message.get("content")
    plain = message.get("role") == "assistant"
    if isinstance(content, str):
        whole: dict[str, object] = {"type": "input_text", "text": content}
        return _text(content, values) if plain else _joined(_parts(whole, values))
    if not isinstance(content, list):
        return content
    rendered: list[object] = []
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            rendered.append(part)
        elif plain:
            rendered.append({**part, "text": _text(part["text"], values)})
        else:
            rendered += _parts(part, values)
    return rendered


def _joined(parts: Sequence[dict[str, object]]) -> object:
    """Return a string where a string will do: it is what servers know best."""
    return parts[0]["text"] if len(parts) == 1 and "text" in parts[0] else list(parts)


def _parts(part: dict[str, object], values: Mapping[str, Value]) -> list[dict[str, object]]:
    """Return a text part with values in it, cut where an image or a file stands."""
    parts: list[dict[str, object]] = []
    text, place = "", 0
    source = str(part["text"])
    for match in PLACEHOLDER.finditer(source):
        text += source[place : match.start()]
        place = match.end()
        value = values[match[1]]
        if isinstance(value, str):
            text += value
            continue
        if text:
            parts.append({**part, "text": text})
        parts.append(value)
        text = ""
    text += source[place:]
    return [*parts, {**part, "text": text}] if text or not parts else parts


def _text(source: str, values: Mapping[str, Value]) -> str:
    return PLACEHOLDER.sub(lambda match: str(values[match[1]]), source)


def merge(template: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return a request with what the template has beside it; null in a request means that it is absent."""
    merged = dict(template)
    for name, value in given.items():
        if value is None:
            continue
        base = merged.get(name)
        if name in _JOINED and isinstance(base, dict) and isinstance(value, dict):
            own = {key: entry for key, entry in value.items() if entry is not None}
            merged[name] = {**base, **own}
        else:
            merged[name] = value
    return merged


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
