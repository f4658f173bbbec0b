"""The loop: carries out what the response machine asks for. The one shell of every run.

A run is a task of its own, not part of the exchange that asked for it: the client's leaving reaches it as
news (`Pipe.abandoned`), not as a cancellation, and a stored response goes on to its end (rule P3).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping

import msgspec

from engine import sse
from engine.answers import Answer, error_answer
from engine.errors import EngineError, Stopped, StorageUnavailable, UpstreamFailed
from engine.limits import Limits
from engine.pipe import Pipe
from engine.ports import (
    Clock,
    FinishedResponse,
    Lease,
    ModelAnswer,
    ModelClient,
    NewResponse,
    ResponseStore,
)
from engine.response.effects import CallModel, Close, Effect, Refuse, Save, Send
from engine.response.inputs import (
    Begin,
    Content,
    Failed,
    Input,
    ModelAnswered,
    Saved,
    SaveFailed,
    TurnEnded,
    WaitedLong,
)
from engine.response.machine import Phase, ResponseMachine
from engine.upstream.frames import read_response
from engine.upstream.refusal import refusal
from engine.upstream.responses import ResponsesStream, TurnRules

_log = logging.getLogger(__name__)

# Seconds between two tries of the store.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is fixed when a run starts. `new` is None for `store: false`."""

    machine: ResponseMachine
    model_body: bytes
    model_headers: Mapping[str, str]
    rules: TurnRules
    new: NewResponse | None
    stream: bool


class Loop:
    """Runs one response to its end; `pipe` takes what its client is to see."""

    def __init__(
        self,
        run: Run,
        pipe: Pipe,
        *,
        model: ModelClient,
        store: ResponseStore,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._run = run
        self._pipe = pipe
        self._machine = run.machine
        self._model = model
        self._store = store
        self._clock = clock
        self._limits = limits
        self._lease: Lease | None = None
        self._effects: deque[Effect] = deque()
        self._accepting: asyncio.Future[Lease] | None = None
        self._saving: asyncio.Future[Saved | SaveFailed] | None = None
        self._abandoning: asyncio.Future[None] | None = None
        self._answer: ModelAnswer | None = None

    async def run(self) -> None:
        """Carry the response to its end, whatever happens on the way."""
        try:
            await self._carefully(self._drive(Begin(self._run.model_body)))
        except asyncio.CancelledError:
            await self._carefully(self._stop())
            raise
        finally:
            self._hang_up()
            self._pipe.end()

    async def _drive(self, received: Input) -> None:
        """Feed the machine and carry out what it asks for, in order, until it asks for nothing more."""
        self._effects.extend(self._machine.receive(received))
        while self._effects:
            await self._carry_out(self._effects.popleft())

    async def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(frames):
                await self._send(frames)
            case CallModel(body):
                await self._turn(body)
            case Save():
                self._saving = asyncio.ensure_future(self._save(effect))
                await self._drive(await asyncio.shield(self._saving))
            case Refuse(error):
                await self._refuse(error)
            case Close():
                self._close(effect)

    async def _send(self, frames: bytes) -> None:
        if self._run.stream and frames:
            await self._pipe.write(frames)

    def _close(self, close: Close) -> None:
        if self._run.stream:
            return
        error = close.error
        self._pipe.answer(Answer(200, close.body) if error is None else error_answer(error))

    # -- one model turn -------------------------------------------------------------------------

    async def _turn(self, body: bytes) -> None:
        """Call the model and feed its answer to the machine; ends with TurnEnded or Failed."""
        if self._run.new is not None and self._accepting is None:
            self._accepting = asyncio.ensure_future(self._store.accept(self._run.new))
        try:
            async with asyncio.timeout(self._limits.turn):
                ending = await self._read_turn(body)
        except TimeoutError:
            ending = self._failed(UpstreamFailed("The model's turn took too long."))
        except EngineError as error:
            ending = self._failed(error)
        if isinstance(ending, Failed):
            self._hang_up()
        # What is kept must not wait for a client that does not read; what is left is bounded.
        self._pipe.release()
        await self._drive(ending)
        await self._part()

    async def _part(self) -> None:
        """Let go of an answer that was read to its end; its client has everything by now."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._pipe.end()
            await answer.finish()

    async def _read_turn(self, body: bytes) -> TurnEnded | Failed:
        answer = await self._call(body)
        self._answer = answer
        if answer.status != 200:
            raise refusal(
                answer.status,
                await self._error_body(answer),
                answer.retry_after,
                clients_credentials="authorization" in self._run.model_headers,
            )
        await self._drive(ModelAnswered())
        upstream = ResponsesStream(self._run.rules)
        if answer.media_type == sse.MEDIA_TYPE:
            await self._read_stream(answer, upstream)
        else:
            await self._read_whole(answer, upstream)
        return self._ending(upstream)

    async def _call(self, body: bytes) -> ModelAnswer:
        """Return the model's answer once the accepted row is written too: the first event waits for both."""
        call = asyncio.ensure_future(self._model.call(body, self._run.model_headers))
        try:
            if self._accepting is not None:
                self._lease = await asyncio.shield(self._accepting)
            if self._run.stream:
                done, _ = await asyncio.wait({call}, timeout=self._limits.open_after)
                if not done:
                    await self._drive(WaitedLong())
            return await call
        except BaseException:
            await _give_up(call)
            raise

    async def _error_body(self, answer: ModelAnswer) -> bytes:
        """Return what there is of an error's body: the status counts, also where the body breaks off."""
        try:
            return await answer.read(self._limits.error_bytes)
        except UpstreamFailed:
            return b""

    async def _read_stream(self, answer: ModelAnswer, upstream: ResponsesStream) -> None:
        """Feed events as they come; everything of one chunk leaves in one write."""
        try:
            async for events in self._events(answer):
                await self._feed(
                    content for event in events for content in upstream.receive(event.data)
                )
                self._check_held(upstream)
                if upstream.outcome is not None:
                    break
        finally:
            # Also where the stream broke off: prose that was held back is let go (rule R8).
            await self._feed(upstream.end())

    async def _events(self, answer: ModelAnswer) -> AsyncIterator[list[sse.Event]]:
        """Yield the events of each chunk."""
        decoder = sse.Decoder(self._limits.line_bytes)
        async for chunk in answer.chunks():
            try:
                yield decoder.feed(chunk)
            except sse.LineTooLong as exc:
                raise UpstreamFailed(str(exc)) from exc

    async def _read_whole(self, answer: ModelAnswer, upstream: ResponsesStream) -> None:
        """Take a server's answer that is no stream although one was asked for."""
        body = await answer.read(self._limits.answer_bytes + 1)
        if len(body) > self._limits.answer_bytes:
            raise UpstreamFailed("The model server's answer is too large.")
        try:
            response = read_response(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UpstreamFailed(f"The model server's answer is not valid: {exc}.") from exc
        await self._feed(upstream.finish(response))
        self._check_held(upstream)

    async def _feed(self, contents: Iterable[Content]) -> None:
        """Give content to the machine and send its events in one write."""
        frames = []
        try:
            for content in contents:
                for effect in self._machine.receive(content):
                    assert isinstance(effect, Send)
                    frames.append(effect.frames)
        finally:
            # Also where something broke half-way: these events have their numbers, none may be missing.
            await self._send(b"".join(frames))

    def _check_held(self, upstream: ResponsesStream) -> None:
        """Bound what is held of the model's output, shown or still held back (rule X5)."""
        if self._machine.held + upstream.held > self._limits.response_bytes:
            raise UpstreamFailed(f"The model's output is over {self._limits.response_bytes} bytes.")

    def _ending(self, upstream: ResponsesStream) -> TurnEnded | Failed:
        outcome = upstream.outcome
        assert outcome is not None
        if outcome.error is not None:
            return self._failed(outcome.error)
        return TurnEnded(self._clock(), outcome.usage, outcome.incomplete_reason)

    def _failed(self, error: EngineError) -> Failed:
        return Failed(self._clock(), error)

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    # -- the store ------------------------------------------------------------------------------

    async def _save(self, save: Save) -> Saved | SaveFailed:
        """Write the terminal state: the one commit that everything is held for (rule P1)."""
        assert self._lease is not None
        finished = FinishedResponse(self._lease, save.status, save.head, save.output)
        try:
            await self._finish(finished)
        except EngineError as error:
            _log.error("%s could not be stored: %s", self._lease.response_id, error)
            return SaveFailed(self._clock(), error)
        return Saved()

    async def _finish(self, finished: FinishedResponse) -> None:
        """Finish the response; while the store is away, try again up to a limit (rule P2)."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._limits.save_wait
        pause, again = _FIRST_PAUSE, False
        while True:
            try:
                await self._store.finish(finished, again=again)
                return
            except StorageUnavailable as error:
                if clock() >= deadline:
                    raise
                _log.warning("%s waits for the store: %s", finished.lease.response_id, error)
            await asyncio.sleep(pause)
            pause, again = min(pause * 2, _LONGEST_PAUSE), True

    async def _refuse(self, error: EngineError) -> None:
        """Answer with an error once the accepted row is gone; the answer is certain, whatever happens."""
        try:
            self._abandoning = asyncio.ensure_future(self._abandon())
            await asyncio.shield(self._abandoning)
        finally:
            self._pipe.answer(error_answer(error))

    async def _abandon(self) -> None:
        """Take the accepted row back: its client was refused and never learnt its id."""
        if self._accepting is None:
            return
        try:
            lease = await asyncio.shield(self._accepting)
        except Exception:
            # Nothing was accepted, and that is what the client is told.
            return
        try:
            await self._store.abandon(lease)
        except EngineError as error:
            _log.warning("%s could not be taken back: %s", lease.response_id, error)

    # -- when it does not go as planned -----------------------------------------------------------

    async def _stop(self) -> None:
        """Bring a cancelled run to a terminal state: what was made so far is kept."""
        self._hang_up()
        self._pipe.release()
        if self._abandoning is not None:
            await self._abandoning
        if self._saving is not None and self._machine.phase is Phase.SAVING:
            await self._drive(await self._saving)
        elif self._effects:
            await self._carry_out(self._effects.popleft())
        if self._machine.phase in (Phase.CALLING, Phase.STREAMING):
            await self._drive(self._failed(Stopped()))

    async def _carefully(self, work: Awaitable[None]) -> None:
        """Await work; a bug of ours in it ends the response with an error, never with a cut."""
        try:
            await work
        except Exception:
            _log.exception("the run of %r broke", self._machine)
            await self._fail_unexpectedly()

    async def _fail_unexpectedly(self) -> None:
        """End a run that met a bug: what it met once it may meet again, so this is tried twice."""
        self._hang_up()
        failure = EngineError("The gateway failed; see its log.")
        for _ in range(2):
            try:
                if self._machine.phase is Phase.SAVING:
                    await self._drive(SaveFailed(self._clock(), failure))
                elif self._machine.phase in (Phase.CALLING, Phase.STREAMING):
                    await self._drive(self._failed(failure))
                break
            except Exception:
                _log.exception("the run of %r could not be ended", self._machine)
        # Counts only where the client has heard nothing yet.
        self._pipe.answer(error_answer(failure))


async def _give_up(task: asyncio.Future[ModelAnswer]) -> None:
    """Cancel a call whose answer nobody waits for; close the answer if it came just now."""
    task.cancel()
    try:
        answer = await task
    except (asyncio.CancelledError, EngineError):
        return
    answer.close()
