"""One call of the model, read to its end: bytes in, content out, every bound kept (rules R11, X5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from engine import sse
from engine.errors import UpstreamFailed
from engine.limits import Limits
from engine.ports import ModelAnswer, ModelClient
from engine.response.inputs import Content
from engine.response.turn import TurnRequest
from engine.upstream.care import Made
from engine.upstream.citing import Citing
from engine.upstream.dialect import DIALECTS
from engine.upstream.refusal import refusal
from engine.upstream.rules import Outcome


class ModelCall:
    """Calls the model once. `held` is asked how much output is already held besides (rule X5)."""

    def __init__(
        self,
        turn: TurnRequest,
        model: ModelClient,
        limits: Limits,
        held: Callable[[], int],
    ) -> None:
        self._turn = turn
        self._model = model
        self._limits = limits
        self._held = held
        self._dialect = DIALECTS[turn.dialect]
        self._upstream = self._dialect.open(turn.rules)
        if turn.rules.sources.calls:
            self._upstream = Citing(self._upstream, turn.rules.sources)
        self._answer: ModelAnswer | None = None

    @property
    def outcome(self) -> Outcome | None:
        """How the turn ended, by the model's own word; None where it has not ended."""
        return self._upstream.outcome

    @property
    def made(self) -> Made:
        """What was let through."""
        return self._upstream.made

    @property
    def held_back(self) -> int:
        """Characters that came and were not let through yet."""
        return self._upstream.held

    async def open(self) -> None:
        """Send the request and wait for a 200; raises UpstreamRefused, UpstreamFailed."""
        answer = self._answer = await self._model.call(
            self._dialect.path, self._turn.body, self._turn.headers
        )
        if answer.status != 200:
            raise refusal(
                answer.status,
                await self._error_body(answer),
                answer.retry_after,
                clients_credentials="authorization" in self._turn.headers,
            )

    async def contents(self) -> AsyncGenerator[Iterable[Content], None]:
        """Yield content as it comes, everything of one chunk together; raises UpstreamFailed."""
        answer = self._answer
        assert answer is not None
        if answer.media_type != sse.MEDIA_TYPE:
            yield await self._read_whole(answer)
            self._check_held()
            return
        receive = self._upstream.receive
        async for events in self._events(answer):
            yield (content for event in events for content in receive(event.data))
            self._check_held()
            if self._upstream.outcome is not None:
                return

    def rest(self) -> list[Content]:
        """Return what was held back when the stream broke off: it was prose (rule R8)."""
        return self._upstream.end()

    def hang_up(self) -> None:
        """Abort the call, if it has not ended."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def finish(self) -> None:
        """Let go of an answer that was read to its terminal event, so that its connection is kept."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.finish()

    async def _error_body(self, answer: ModelAnswer) -> bytes:
        """Return what there is of an error's body: the status counts, also where the body breaks off."""
        try:
            return await answer.read(self._limits.error_bytes)
        except UpstreamFailed:
            return b""

    async def _events(self, answer: ModelAnswer) -> AsyncIterator[list[sse.Event]]:
        """Yield the events of each chunk."""
        decoder = sse.Decoder(self._limits.line_bytes)
        async for chunk in answer.chunks():
            try:
                yield decoder.feed(chunk)
            except sse.LineTooLong as exc:
                raise UpstreamFailed(str(exc)) from exc

    async def _read_whole(self, answer: ModelAnswer) -> list[Content]:
        """Take a server's answer that is no stream although one was asked for."""
        body = await answer.read(self._limits.answer_bytes + 1)
        if len(body) > self._limits.answer_bytes:
            raise UpstreamFailed("The model server's answer is too large.")
        return self._upstream.receive_whole(body)

    def _check_held(self) -> None:
        """Bound what is held of the model's output, shown or still held back."""
        if self._held() + self._upstream.held > self._limits.response_bytes:
            raise UpstreamFailed(f"The model's output is over {self._limits.response_bytes} bytes.")
