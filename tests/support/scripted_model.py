"""The only fake of our tests: a model server that does what a script says, or else as the demo.

    async with ScriptedModel() as model:
        model.script(say(text("Hel", "lo")), Script(stream(text("x"))[:3], Cut()))
        ...                                     # point the sidecar, or Envoy, at model.url
        request = await model.next_request(timeout=5)

Which script answers a model call, the first that there is:
  1. the queue of `model.script(...)`
  2. the request header `x-script: <name>` (names: tests.support.catalogue, and `model.named`)
  3. the body's `model`: `script/<name>`, or `vllm-<release>/<scenario>`: a recording, its inputs
     checked as that release checks them; scenario `demo`: the demo behind that release's checks
  4. the body's `metadata.script`
  5. `model.always`, and at last the demo.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import uuid
import weakref
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from aiohttp import web
from multidict import CIMultiDictProxy

from extproc.demo import app as demo
from extproc.demo.rejection import Rejected, unknown_response
from tests.support import catalogue, replies, transcripts
from tests.support.releases import check_release, release_of
from tests.support.scripts import (
    CHAT,
    RESPONSES,
    SSE_TYPE,
    Asked,
    Body,
    ByOutputs,
    Cut,
    Hold,
    Pace,
    Say,
    Script,
    Start,
    Stream,
)

DEADLINE = 10.0
TOKENIZE = "/tokenize"


def words_in(items: Any) -> int:
    """A token for each word: of messages, or of the input of a request."""
    return len(json.dumps(items).split())


@dataclass(eq=False)
class Received:
    """One request as it arrived, and what became of its answer."""

    method: str
    path: str
    headers: CIMultiDictProxy[str]
    body: bytes
    # Set when the client went away before the answer was over.
    aborted: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when we are through with it, in whatever way.
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def wait_aborted(self, timeout: float = DEADLINE) -> None:
        """Returns once the client has gone away mid-answer; TimeoutError if it does not."""
        async with asyncio.timeout(timeout):
            await self.aborted.wait()

    async def wait_over(self, timeout: float = DEADLINE) -> None:
        async with asyncio.timeout(timeout):
            await self.over.wait()


class ScriptedModel:
    """A model server on 127.0.0.1 or a unix socket, for the time of an `async with`.

    `release`: reject inputs as that vLLM release does (`"0.18.1"`), and report it at `/version`.
    `validate=False`: recordings answer any request; by default only what their release accepts.
    """

    running: ClassVar[weakref.WeakSet[ScriptedModel]] = weakref.WeakSet()
    """Those that there are now."""

    def __init__(
        self,
        *,
        unix_socket: Path | str | None = None,
        release: str | None = None,
        validate: bool = True,
    ) -> None:
        self.requests: list[Received] = []
        # GETs: health checks and version probes come at any time, and no test shall trip on them.
        self.probes: list[Received] = []
        self.named: dict[str, Script] = dict(catalogue.NAMED)
        self.always: Script | None = None
        # Models of which `/tokenize` counts the words, with the most that fit; of others it knows nothing.
        self.contexts: dict[str, int] = {}
        self.health_status = 200
        self.url = ""
        self._unix_socket = str(unix_socket) if unix_socket else None
        self._release = release
        self._validate = validate
        self._queues: dict[str, deque[Script]] = defaultdict(deque)
        self._unread: asyncio.Queue[Received] = asyncio.Queue()
        self._failures: list[Exception] = []
        self._runner: web.AppRunner | None = None
        self.running.add(self)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=demo.MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._receive)
        # Cancelled when its client goes away: that is how `aborted` is noticed in a silence.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05)
        await self._runner.setup()
        if self._unix_socket:
            await web.UnixSite(self._runner, self._unix_socket).start()
            self.url = f"unix:{self._unix_socket}"
        else:
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        # A script that broke looked like a 500 to the code under test: say so here.
        if self._failures and error is None:
            raise self._failures[0]

    def twin(self) -> ScriptedModel:
        """Another server that plays the same scripts, also those of the queue; `requests` are its own."""
        twin = ScriptedModel(release=self._release, validate=self._validate)
        twin.named, twin._queues, twin.contexts = self.named, self._queues, self.contexts
        return twin

    async def stop(self) -> None:
        """Be gone, as a server that died: nobody listens, and what was open is closed."""
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        assert self._runner is not None
        return int(self._runner.addresses[0][1])

    @property
    def unused(self) -> int:
        """How many queued scripts no request has taken."""
        return sum(map(len, self._queues.values()))

    def script(self, *scripts: Script, path: str = RESPONSES) -> None:
        """Queues scripts for the next requests to a path, one each."""
        self._queues[path].extend(scripts)

    def unscript(self) -> None:
        """Forgets the queued scripts that no request has taken."""
        self._queues.clear()

    async def next_request(self, timeout: float = DEADLINE) -> Received:
        """The first model call that was not given out yet, waiting for it if need be."""
        async with asyncio.timeout(timeout):
            return await self._unread.get()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = Received(request.method, request.path_qs, request.headers, body)
        if request.method != "POST":
            self.probes.append(received)
        else:
            self.requests.append(received)
            self._unread.put_nowait(received)
        try:
            return await self._answer(request, received)
        except (asyncio.CancelledError, ConnectionError):
            # Cancelled by our own shutdown, the client is still there.
            if request.transport is None or request.transport.is_closing():
                received.aborted.set()
            raise
        except Exception as error:
            self._failures.append(error)
            raise
        finally:
            received.over.set()

    async def _answer(self, request: web.Request, received: Received) -> web.StreamResponse:
        try:
            script, asked = self._chosen(request, received)
            if script is None:
                told = request.path == TOKENIZE and request.method == "POST"
                return self._count(received) if told else self._probe(request)
            return await _Performance(request, asked).play(script)
        except Rejected as rejected:
            return demo.error_response(rejected)

    def _chosen(self, request: web.Request, received: Received) -> tuple[Script | None, Asked]:
        body: dict[str, Any] = {}
        queue = self._queues[request.path]
        turn = request.path in (RESPONSES, CHAT) and request.method == "POST"
        if turn:
            body = demo.read_body(request.content_type, received.body)
        asked = Asked(request.path, body, uuid.uuid4().hex)
        if queue:
            return queue.popleft(), asked
        if not turn:
            return None, asked
        return self._by_name(request, asked) or self.always or self._demo(asked), asked

    def _by_name(self, request: web.Request, asked: Asked) -> Script | None:
        model = str(asked.body.get("model") or "")
        metadata = asked.body.get("metadata") or {}
        name = request.headers.get("x-script") or (
            model.removeprefix("script/") if model.startswith("script/") else None
        )
        if name is None and model.startswith("vllm-"):
            return self._profile(model, asked)
        name = name or metadata.get("script")
        if name is None:
            return None
        if name not in self.named:
            raise ValueError(f"no script is called {name!r}")
        return self.named[name]

    def _profile(self, model: str, asked: Asked) -> Script:
        name = model.removeprefix("vllm-")
        version, _, scenario = name.partition("/")
        if scenario != "demo" and name not in transcripts.names():
            return Script(replies.no_such_model())
        if self._validate and asked.path == RESPONSES:
            check_release(asked.body, release_of(version))
        return self._demo(asked) if scenario == "demo" else replies.transcript(name)

    def _demo(self, asked: Asked) -> Script:
        if self._release and asked.path == RESPONSES:
            check_release(asked.body, release_of(self._release))
        return replies.demo_answer()

    def _count(self, received: Received) -> web.StreamResponse:
        context = self.contexts.get(received.json["model"])
        if context is None:
            return web.json_response({"detail": "Not Found"}, status=404)
        count = words_in(received.json["messages"])
        return web.json_response(
            {"count": count, "max_model_len": context, "tokens": [1] * count, "token_strs": None}
        )

    def _probe(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response(status=self.health_status)
        if request.path == "/version":
            return web.json_response({"version": self._release or demo.VERSION})
        if request.path == "/v1/models":
            return web.json_response(demo.model_list())
        if request.path.startswith(f"{RESPONSES}/"):
            return demo.error_response(unknown_response(request.path.split("/")[3]))
        return web.json_response({"detail": "Not Found"}, status=404)


class _Performance:
    """One script played to one request."""

    def __init__(self, request: web.Request, asked: Asked) -> None:
        self._request = request
        self._asked = asked
        self._response: web.StreamResponse | None = None

    async def play(self, script: Script) -> web.StreamResponse:
        for step in script.steps:
            match step:
                case Hold():
                    await step.until.wait()
                case Start():
                    await self._start(step.status, step.headers)
                case Stream():
                    await self._stream(step)
                case Pace():
                    await self._stream(step.stream, step.seconds)
                case Body():
                    await self._body(step)
                case Say():
                    await self._say(step)
                case Cut():
                    self._cut(step.reset)
                case ByOutputs():
                    await self.play(step.of(self._asked))
        # Steps without a body, or a cut before the status: nothing of this response gets out.
        return self._response or web.Response()

    async def _start(self, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(status=status, headers=headers)
            await self._response.prepare(self._request)
        return self._response

    async def _stream(self, step: Stream, pause: float = 0) -> None:
        # Made first: the demo may turn the request down, and then there is no 200.
        writes = step.make(self._asked)
        response = await self._start(200, {"content-type": SSE_TYPE, **step.headers})
        for write in writes:
            await response.write(write)
            # One turn of the loop at least, so that the client sees this write by itself and others run.
            await asyncio.sleep(pause)

    async def _body(self, step: Body) -> None:
        content = step.make(self._asked)
        length = {"content-length": str(len(content))}
        response = await self._start(step.status, {**step.headers, **length})
        await response.write(content[: step.cut_after])
        if step.cut_after is not None:
            self._cut(reset=False)

    async def _say(self, step: Say) -> None:
        await (self._stream(step.stream) if self._asked.wants_stream else self._body(step.body))

    def _cut(self, reset: bool) -> None:
        transport = self._request.transport
        if transport is None:
            return
        peer = transport.get_extra_info("socket")
        if reset and peer is not None and peer.family == socket.AF_INET:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            # What was written still goes out; the end of the body does not.
            transport.close()
