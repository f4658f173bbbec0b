"""Fakes of the model servers that people run beside vLLM: their streams, and what they turn down.

async with FakeServer("ollama") as server: ...     plays tests/transcripts/ollama, by what it is asked
server.always = play("ollama", "chat_cut")         one thing to every request
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support import strictness
from tests.support.replies import raw
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import CHAT, Asked, Script

FOLDER = Path(__file__).parent.parent / "transcripts"
RECORDED = "recorded-"
SERVERS = ("llamacpp", "lmstudio", "ollama", "openrouter", "sglang", "transformers")


def frames(server: str, name: str) -> list[bytes]:
    """Return the frames of one of a server's streams."""
    text = (FOLDER / server / f"{name}.sse").read_text(encoding="utf-8")
    return [f"{frame}\n\n".encode() for frame in text.split("\n\n") if frame]


def names(server: str, kind: str) -> list[str]:
    """Return the names of a server's streams of one kind: `chat` or `responses`, written or recorded."""
    return sorted(
        path.stem
        for start in ("", RECORDED)
        for path in (FOLDER / server).glob(f"{start}{kind}_*.sse")
    )


def play(server: str, name: str) -> Script:
    """Return the script of one of a server's streams."""
    return Script(raw(*frames(server, name)))


class FakeServer(ScriptedModel):
    """Serves chat completions as one kind of server does; knows no version and no `/v1/responses`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def _by_name(self, request: web.Request, asked: Asked) -> Script | None:
        if asked.path != CHAT:
            raise strictness.not_found()
        strictness.check(self.name, asked.body)
        return self.always or play(self.name, f"chat_{_wanted(asked.body)}")

    def _probe(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/models":
            return web.Response(
                body=(FOLDER / self.name / "models.json").read_bytes(),
                content_type="application/json",
            )
        return web.json_response({"error": "not found"}, status=404)


def _wanted(body: Mapping[str, Any]) -> str:
    """Return which stream answers: calls where tools are offered and were not called for this yet."""
    last = body["messages"][-1]
    if body.get("tools") and last["role"] == "user" and "weather" in _text(last["content"]):
        return "tool"
    return "reasoning" if "think" in _text(last["content"]) else "text"


def _text(content: str | Iterable[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text", "")) for part in content)
