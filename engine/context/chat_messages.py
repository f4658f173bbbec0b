"""Replayed items as chat messages, in the order that chat templates insist on (rules M4, M9).

Everything that a model said between two inputs is one assistant message, and the outputs of its calls
stand right behind it; instructions stand first and nowhere else. A message depends on its own items
alone, so a shared history is a shared prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

Message = dict[str, object]


class ReplayedItem(msgspec.Struct):
    """An item as `engine.context.replay` writes it."""

    type: str = "message"
    role: str = ""
    content: str | list[dict[str, object]] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[dict[str, object]] = ""


_items = msgspec.json.Decoder(list[ReplayedItem])


class _Group(msgspec.Struct):
    """What the model said in one go."""

    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ReplayedItem] = []


def chat_messages(
    instructions: str | None, items: Iterable[bytes], *, reasoning_key: str | None
) -> list[Message]:
    """Return the messages of a request; `items` are replayed items.

    `reasoning_key`: where an assistant message has its reasoning; None: it is left out.
    """
    # One stored item may be replayed as several, such as a call with its output.
    read = _items.decode(b"[%b]" % b",".join(items))
    outputs = _Outputs(read)
    leading = _leading(read)
    messages = _system([instructions] if instructions else [], read[:leading])
    group = _Group()
    for item in read[leading:]:
        if item.type in ("function_call", "reasoning") or item.role == "assistant":
            _collect(group, item)
            continue
        messages += _spoken(group, outputs, reasoning_key)
        group = _Group()
        if item.type == "message":
            messages.append(_input(item))
    return messages + _spoken(group, outputs, reasoning_key)


class _Outputs:
    """What calls returned; clients may use one call_id again in a later turn."""

    def __init__(self, items: Iterable[ReplayedItem]) -> None:
        self._by_call: dict[str, list[ReplayedItem]] = {}
        for item in items:
            if item.type == "function_call_output":
                self._by_call.setdefault(item.call_id, []).append(item)

    def take(self, calls: Iterable[ReplayedItem]) -> list[tuple[ReplayedItem, ReplayedItem]]:
        """Return those of the calls that have an output, each with its own."""
        return [
            (call, self._by_call[call.call_id].pop(0))
            for call in calls
            if self._by_call.get(call.call_id)
        ]


def _leading(items: Sequence[ReplayedItem]) -> int:
    """Return how many instructions stand at the beginning."""
    count = 0
    while count < len(items) and items[count].role in ("system", "developer"):
        count += 1
    return count


def _system(texts: list[str], items: Sequence[ReplayedItem]) -> list[Message]:
    """Return the one system message that templates allow, if there is any."""
    for item in items:
        texts += [item.content] if isinstance(item.content, str) else _texts(item.content or ())
    return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []


def _input(item: ReplayedItem) -> Message:
    """Return a user's message. Templates fail on instructions behind it, and know no `developer`."""
    content = item.content if isinstance(item.content, str) else _parts(item.content or ())
    return {"role": "user", "content": content}


def _collect(group: _Group, item: ReplayedItem) -> None:
    if item.type == "function_call":
        group.calls.append(item)
        return
    texts = group.thoughts if item.type == "reasoning" else group.texts
    texts += [item.content] if isinstance(item.content, str) else _texts(item.content or ())


def _spoken(group: _Group, outputs: _Outputs, reasoning_key: str | None) -> list[Message]:
    """Return the assistant's message with what its calls returned; a thought alone is no message."""
    calls = outputs.take(group.calls)
    if not group.texts and not calls:
        return []
    message: Message = {"role": "assistant", "content": "\n\n".join(group.texts)}
    if reasoning_key is not None and group.thoughts:
        message[reasoning_key] = "\n".join(group.thoughts)
    if calls:
        message["tool_calls"] = [_call(call) for call, _ in calls]
    return [message, *_returned([output for _, output in calls])]


def _call(call: ReplayedItem) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _returned(outputs: Sequence[ReplayedItem]) -> list[Message]:
    """Return the tools' messages; images in them follow as a user's, for a tool's may have none."""
    messages: list[Message] = []
    images: list[dict[str, object]] = []
    for item in outputs:
        text = item.output
        if not isinstance(text, str):
            images += [part for part in _parts(text) if part["type"] == "image_url"]
            text = "\n".join(_texts(text)) or "(see the image)"
        messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text})
    return [*messages, {"role": "user", "content": images}] if images else messages


def _texts(parts: Iterable[Mapping[str, object]]) -> list[str]:
    return [str(part["text"]) for part in parts if "text" in part]


def _parts(parts: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    return [_part(part) for part in parts]


def _part(part: Mapping[str, object]) -> dict[str, object]:
    if part["type"] == "input_text":
        return {"type": "text", "text": part["text"]}
    image = {"url": part["image_url"]}
    # Chat knows no more than these; `auto` is what it takes anyway.
    detail = {"low": "low", "high": "high", "original": "high"}.get(str(part.get("detail")))
    return {"type": "image_url", "image_url": {**image, "detail": detail} if detail else image}
