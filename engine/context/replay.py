"""The canonical encoder: an item of the API as the bytes that a model server is sent (rules M4, M9).

One form for every server and release that we know: what they all accept of the Responses API is much
less than the API. Text messages become `{role, content: "..."}`; calls and outputs keep only what pairs
them; reasoning has one text part. What no server may see (ids of ours, statuses, annotations, truncated
calls) is left out. The bytes depend on the item alone, so a shared history is a shared prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from engine.api.json import encode, is_json_object

Item = Mapping[str, object]

_SAID = b'{"role":"assistant"'


def replay(item: Item) -> bytes | None:
    """Return the upstream JSON of an item in the API's form; None where nothing is sent."""
    encoder = _ENCODERS.get(str(item["type"]))
    return None if encoder is None else encoder(item)


def typed_message(replayed: bytes) -> bytes:
    """Return what the model said as a typed message, for a server that takes nothing else (llama.cpp).

    Not the canonical form: vLLM before 0.21 wants ids in it.
    """
    if not replayed.startswith(_SAID):
        return replayed
    said = msgspec.json.decode(replayed)
    part = {"type": "output_text", "text": said["content"]}
    return encode({"type": "message", "role": "assistant", "content": [part]})


def _parts(value: object) -> Sequence[Item]:
    return value if isinstance(value, list) else ()


def _message(item: Item) -> bytes | None:
    role = item["role"]
    parts = _parts(item["content"])
    if role == "assistant":
        # Servers read the first part only, or only a string: join. An empty one breaks vLLM (500).
        text = "".join(str(part.get("text", part.get("refusal", ""))) for part in parts)
        return encode({"role": role, "content": text}) if text else None
    if len(parts) == 1 and parts[0]["type"] == "input_text":
        return encode({"role": role, "content": parts[0]["text"]})
    content = [_input_part(part) for part in parts]
    return encode({"type": "message", "role": role, "content": content})


def _input_part(part: Item) -> dict[str, object]:
    if part["type"] == "input_text":
        return {"type": "input_text", "text": part["text"]}
    # vLLM up to 0.30 wants `detail` to be there.
    return {
        "type": "input_image",
        "image_url": part["image_url"],
        "detail": part.get("detail") or "auto",
    }


def _reasoning(item: Item) -> bytes | None:
    text = "".join(str(part["text"]) for part in _parts(item.get("content")))
    if not text:
        # A summary alone is refused by llama.cpp and read as thinking by vLLM.
        return None
    return encode(
        {
            "type": "reasoning",
            "id": item["id"],
            "summary": [],
            "content": [{"type": "reasoning_text", "text": text}],
        }
    )


def _function_call(item: Item) -> bytes | None:
    if item.get("status") == "incomplete":
        return None
    arguments = str(item["arguments"])
    if not is_json_object(arguments):
        # Chat templates take the arguments apart: what is no object must not become a 400 on each later turn.
        arguments = encode({"invalid_arguments": arguments}).decode() if arguments else "{}"
    return encode(
        {
            "type": "function_call",
            "call_id": item["call_id"],
            "name": item["name"],
            "arguments": arguments,
        }
    )


def _function_call_output(item: Item) -> bytes:
    return encode(
        {
            "type": "function_call_output",
            "call_id": item["call_id"],
            "output": _output(item["output"]),
        }
    )


def _output(value: object) -> object:
    if isinstance(value, str):
        return value
    parts = _parts(value)
    if all(part["type"] == "input_text" for part in parts):
        # gpt-oss servers fail on a list here.
        return "\n".join(str(part["text"]) for part in parts)
    return [_input_part(part) for part in parts]


_ENCODERS: Mapping[str, Callable[[Item], bytes | None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
}
