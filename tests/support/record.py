"""Records what a real server streams: `python -m tests.support.record URL MODEL FOLDER [KIND …]`.

Kinds: text, reasoning, tool, babble; all unless some are named. What was recorded is in
tests/transcripts/README.md.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.scripts import CHAT, RESPONSES
from tests.support.servers import RECORDED

_ASKED = {"text": "hi", "reasoning": "think", "tool": "the weather in Paris", "babble": "babble"}
_BABBLED = 12
_FUNCTIONS: list[dict[str, Any]] = [
    {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
]


async def record(url: str, model: str, folder: Path, kinds: list[str]) -> None:
    """Write one file for each kind and dialect, and what the server says of itself and of bad requests."""
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(60)) as client:

        async def keep(name: str, path: str, body: dict[str, Any] | None = None) -> None:
            given = None if body is None else {"model": model, **body}
            method = "GET" if body is None else "POST"
            # llama.cpp closes its connection behind each stream.
            headers = {"connection": "close"}
            async with client.request(method, path, json=given, headers=headers) as answer:
                text = (await answer.text()).rstrip("\n")
            end = "\n\n" if name.endswith("sse") else "\n"
            (folder / f"{RECORDED}{name}").write_text(text + end, encoding="utf-8")

        for kind in kinds or _ASKED:
            await keep(f"chat_{kind}.sse", CHAT, _chat(kind))
            await keep(f"responses_{kind}.sse", RESPONSES, _responses(kind))
        await keep("models.json", "/v1/models")
        await keep("version.json", "/version")
        await keep("error_messages.json", CHAT, {"messages": "x"})
        await keep(
            "error_input.json", RESPONSES, {"input": [{"role": "assistant", "content": "x"}]}
        )
        await keep("error_field.json", CHAT, {**_chat("text"), "nonsense": 1, "max_tokens": 1})
        long = [{"role": "user", "content": "x" * 20_000}]
        await keep("error_long.json", CHAT, {"messages": long, "max_tokens": 1})


def _chat(kind: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": _ASKED[kind]}],
    }
    if kind == "tool":
        body["tools"] = [{"type": "function", "function": function} for function in _FUNCTIONS]
    return body | ({"max_tokens": _BABBLED} if kind == "babble" else {})


def _responses(kind: str) -> dict[str, Any]:
    body: dict[str, Any] = {"stream": True, "input": _ASKED[kind]}
    if kind == "tool":
        body["tools"] = [{"type": "function", **function} for function in _FUNCTIONS]
    return body | ({"max_output_tokens": _BABBLED} if kind == "babble" else {})


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
