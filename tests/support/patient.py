"""Model servers for the doctor to examine: the scripted model, answering each probe as a release did.

async with Patient(release="0.18.1") as server: ...     its recordings, chosen by what is asked
async with Patient() as server: ...                     the demo model
server.faults["tool call"] = script                     one thing broken
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.support import replies
from tests.support.releases import check_release, release_of
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import RESPONSES, Asked, Script


class Patient(ScriptedModel):
    """`faults` are scripts by what is asked (`kind_of`); `metrics`: it counts its running requests.

    `deaf` leaves generation running when a client goes away, as far as its metrics tell.
    """

    def __init__(self, *, release: str | None = None, metrics: bool = True) -> None:
        super().__init__(release=release)
        self.faults: dict[str, Script] = {}
        self.deaf = False
        self._metrics = metrics

    def _by_name(self, request: web.Request, asked: Asked) -> Script | None:
        if asked.body.get("model") != "holdfast-demo":
            return Script(replies.no_such_model())
        kind = kind_of(asked.body)
        if kind in self.faults:
            return self.faults[kind]
        if self._release is None or asked.path != RESPONSES or kind not in _RECORDED:
            return None
        check_release(asked.body, release_of(self._release))
        return replies.transcript(f"{self._release}/{_RECORDED[kind]}")

    def _probe(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/metrics" and self._metrics:
            running = sum(not (r.aborted.is_set() and not self.deaf) for r in self._at_work())
            return web.Response(text=f'vllm:num_requests_running{{model="m"}} {float(running)}\n')
        return super()._probe(request)

    def _at_work(self) -> list[Any]:
        return [r for r in self.requests if not r.over.is_set() or r.aborted.is_set()]


_RECORDED = {
    "text": "text",
    "truncation": "length",
    "reasoning": "reasoning_text",
    "tool call": "tool",
    "parallel calls": "parallel",
    "no arguments": "tool_noargs",
}


def kind_of(body: dict[str, Any]) -> str:
    """Return what the doctor is looking at with this request."""
    given = body.get("input")
    asked = given if isinstance(given, str) else str((given or [{}])[-1].get("content", ""))
    tools = [tool.get("name") for tool in body.get("tools") or ()]
    if isinstance(given, list) and len(given) > 1:
        return "history"
    for kind, sign in (
        ("truncation", "Count"),
        ("reasoning", "prime"),
        ("structured output", "Ada"),
        ("disconnect", "story"),
    ):
        if sign in asked:
            return kind
    if tools == ["get_weather", "get_time"]:
        return "parallel calls"
    return {"get_weather": "tool call", "ping": "no arguments"}.get(
        tools[0] if tools else "", "text"
    )
