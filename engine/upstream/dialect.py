"""The dialects in which a model server can be asked: one path, one encoder, one reader each. Pure.

What the loop does is the same for all; the settings say which dialect a server is asked in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from engine.api import checks
from engine.api.request import CreateRequest
from engine.context.chat import chat_request, check_fields
from engine.context.replay import typed_message
from engine.context.upstream import upstream_request
from engine.response.inputs import Content
from engine.response.turn import Encoder, TurnRules
from engine.upstream.care import Made
from engine.upstream.chat import ChatStream
from engine.upstream.responses import ResponsesStream
from engine.upstream.rules import Outcome, turn_rules
from engine.upstream.servers import UNKNOWN, Server


class TurnReader(Protocol):
    """Reads the answer of one turn: either events and their end, or one whole body."""

    @property
    def outcome(self) -> Outcome | None:
        """How the turn ended; None while it goes on. Nothing is to be read behind it."""

    @property
    def made(self) -> Made:
        """What was let through."""

    @property
    def held(self) -> int:
        """Characters, roughly, that were received and not let through yet (rule X5)."""

    def receive(self, data: bytes) -> list[Content]:
        """Take the data of one server-sent event; never raises, a bad event fails the turn."""

    def end(self) -> list[Content]:
        """Take the end of the stream, also a broken one; afterwards there is an `outcome`."""

    def receive_whole(self, body: bytes) -> list[Content]:
        """Take an answer that is no stream; raises UpstreamFailed where it is none of this dialect."""


class Dialect(Encoder, Protocol):
    """How a model server is asked for a turn, and how its answer is read."""

    @property
    def path(self) -> str:
        """The path to POST to."""

    def check(self, request: CreateRequest) -> None:
        """Refuse what the server is known not to honour; raises InvalidRequest (rule H1)."""

    def open(self, rules: TurnRules) -> TurnReader:
        """Return a reader for the answer of one turn."""


class ResponsesDialect:
    """`/v1/responses`, as vLLM, Ollama, llama.cpp and others have it."""

    name = "responses"
    path = "/v1/responses"

    def __init__(self, server: Server = UNKNOWN) -> None:
        self._server = server
        self.tells_cuts = server.tells_cuts

    def encode(
        self,
        request: CreateRequest,
        items: Iterable[bytes],
        owned: Sequence[dict[str, object]] = (),
        *,
        first: bool = True,
        forced: object | None = None,
    ) -> bytes:
        """Return the body of a `/v1/responses` request."""
        if self._server.typed_messages:
            items = map(typed_message, items)
        return upstream_request(request, items, owned, first=first, forced=forced)

    def check(self, request: CreateRequest) -> None:
        """Refuse what is passed over; else servers that have this API judge its fields themselves."""
        if not self._server.formats and turn_rules(request).structured:
            raise checks.unsupported(
                "text.format", f"the /v1/responses of {self._server.name} does not honour it."
            )

    def open(self, rules: TurnRules) -> TurnReader:
        """Return a reader for its answer."""
        return ResponsesStream(rules)


class ChatDialect:
    """`/v1/chat/completions`, which every server has."""

    name = "chat"
    tells_cuts = True
    path = "/v1/chat/completions"

    def __init__(self, server: Server = UNKNOWN) -> None:
        self._server = server

    def encode(
        self,
        request: CreateRequest,
        items: Iterable[bytes],
        owned: Sequence[dict[str, object]] = (),
        *,
        first: bool = True,
        forced: object | None = None,
    ) -> bytes:
        """Return the body of a `/v1/chat/completions` request."""
        return chat_request(request, items, owned, first=first, forced=forced, server=self._server)

    def check(self, request: CreateRequest) -> None:
        """Refuse fields that this kind of server ignores in silence, or would refuse."""
        check_fields(request, self._server)

    def open(self, rules: TurnRules) -> TurnReader:
        """Return a reader for its answer."""
        return ChatStream(rules)


DIALECTS: dict[str, Dialect] = {"responses": ResponsesDialect(), "chat": ChatDialect()}
"""By the names that settings call them."""
