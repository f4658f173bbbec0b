"""The demo model as an HTTP application: its routes, and how an answer is paced."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from extproc.demo import ask as asking
from extproc.demo import chat_wire, responses_wire
from extproc.demo.answer import answer
from extproc.demo.rejection import Rejected, unknown_response
from extproc.demo.request_fields import check_chat, check_length, check_responses
from extproc.demo.responses_wire import MAX_MODEL_LEN

VERSION = "0.32.0-holdfast-demo"
MODEL = "holdfast-demo"
MAX_BODY = 1 << 30

Route = Callable[[web.Request], Awaitable[web.StreamResponse]]

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer in its wire's spelling: a lazy stream of frames, or one body."""

    frames: Iterator[bytes]
    body: bytes


def respond(body: dict[str, Any], seed: str) -> Spoken:
    """The answer to a `/v1/responses` body, its ids made from the seed; raises Rejected."""
    check_responses(body)
    asked = asking.from_responses(body)
    check_length(asked)
    reply = responses_wire.Reply(body, answer(asked), seed, int(time.time()))
    frames = map(responses_wire.encode, reply.events())
    return Spoken(frames, msgspec.json.encode(reply.response()))


def complete(body: dict[str, Any], seed: str) -> Spoken:
    """The answer to a `/v1/chat/completions` body; raises Rejected."""
    check_chat(body)
    asked = asking.from_chat(body)
    check_length(asked)
    reply = chat_wire.ChatReply(body, answer(asked), seed, int(time.time()))
    return Spoken(_chat_frames(reply), msgspec.json.encode(reply.completion()))


def _chat_frames(reply: chat_wire.ChatReply) -> Iterator[bytes]:
    yield from map(chat_wire.encode, reply.events())
    yield chat_wire.DONE


def read_body(content_type: str, raw: bytes) -> dict[str, Any]:
    """The request's JSON object; raises Rejected in vLLM's words."""
    if content_type != "application/json":
        raise Rejected(
            "Unsupported Media Type: Only 'application/json' is allowed", kind="Bad Request"
        )
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"JSON decode error: {error}", kind="Bad Request") from error
    if not isinstance(body, dict):
        raise Rejected("Input should be a valid dictionary", kind="Bad Request")
    return body


def model_list(name: str = MODEL) -> dict[str, Any]:
    """The body of `GET /v1/models`."""
    model = {
        "id": name,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "holdfast-demo",
        "root": name,
        "parent": None,
        "max_model_len": MAX_MODEL_LEN,
    }
    return {"object": "list", "data": [model]}


class DemoModel:
    """The routes of the demo model. `delay`: seconds between two tokens of a stream."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/responses", self._post(respond))
        app.router.add_get("/v1/responses/{id}", self._unknown_response)
        app.router.add_post("/v1/responses/{id}/cancel", self._unknown_response)
        app.router.add_post("/v1/chat/completions", self._post(complete))
        return app

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def _version(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"version": VERSION})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(model_list())

    async def _unknown_response(self, request: web.Request) -> web.StreamResponse:
        return error_response(unknown_response(request.match_info["id"]))

    def _post(self, speak: Callable[[dict[str, Any], str], Spoken]) -> Route:
        async def answered(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            try:
                body = read_body(request.content_type, raw)
                spoken = speak(body, uuid.uuid4().hex)
            except Rejected as rejected:
                return error_response(rejected)
            return await self._speak(request, spoken, bool(body.get("stream")))

        return answered

    async def _speak(
        self, request: web.Request, spoken: Spoken, stream: bool
    ) -> web.StreamResponse:
        if not stream:
            return web.Response(body=spoken.body, content_type="application/json")
        response = web.StreamResponse(headers=STREAM_HEADERS)
        await response.prepare(request)
        await self._write(response, spoken.frames)
        return response

    async def _write(self, response: web.StreamResponse, frames: Iterable[bytes]) -> None:
        for frame in frames:
            await response.write(frame)
            if self._delay and b'delta"' in frame:
                await asyncio.sleep(self._delay)


def error_response(rejected: Rejected) -> web.Response:
    """The error as vLLM sends it."""
    return web.json_response(rejected.body, status=rejected.status)
