"""The loop: carries out what the response machine asks for. The one shell of every run.

A run is a task of its own, not part of the exchange that asked for it. What happens outside of its turns
reaches it as news, never as a cancellation: the client's leaving (by `Pipe`), a cancel, a lost lease, a
hand-over (by `Live`). News ends the model's turn within a step of the event loop, which aborts the call.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Coroutine

from engine.account import CURRENT
from engine.anew import Anew
from engine.answers import Answer
from engine.compaction_step import CompactionStep
from engine.custody import Custody, lease_lost
from engine.delivery import Delivery
from engine.detached import Absence
from engine.errors import EngineError, LeaseLost, Stopped
from engine.measured import Measured
from engine.news import News
from engine.pipe import Pipe
from engine.ports import Lease
from engine.response.effects import (
    CallModel,
    Close,
    Compact,
    Effect,
    ListTools,
    Refuse,
    RunTools,
    Save,
    Send,
)
from engine.response.inputs import (
    Cancelled,
    CutShort,
    Failed,
    Input,
    Saved,
    SaveFailed,
)
from engine.response.phase import Phase
from engine.response.turn import TurnRequest
from engine.run import Means, Run
from engine.tool_rounds import ToolRounds
from engine.turns import Turns

_log = logging.getLogger(__name__)


class Loop:
    """Runs one response to its end; `pipe` takes what its client is to see."""

    def __init__(self, run: Run, pipe: Pipe, means: Means) -> None:
        self.run_of = run
        self._account = run.account
        self._pipe = pipe
        self._machine = run.machine
        self._means = means
        self._limits = means.limits
        self._effects: deque[Effect] = deque()
        self._saving: asyncio.Future[Saved | SaveFailed] | None = None
        self._abandoning: asyncio.Future[None] | None = None
        self._releasing: asyncio.Future[None] | None = None
        self._news = News()
        self._leaving = False
        self._absence: Absence | None = None
        self._custody = Custody(run, means, self._log_failed)
        self._delivery = Delivery(
            run.machine, pipe, self._custody.log, run.account, stream=run.stream
        )
        self._tools = ToolRounds(run, means, self._custody, self._delivery)
        self._compaction = CompactionStep(run, means, self._custody, self._delivery)
        self._anew = Anew(run, means)
        self._measured = Measured(run, means.meters)
        self._turns = Turns(
            run, means, self._custody, self._delivery, self._news, self._anew, self._measured
        )
        pipe.on_leave = self._client_left

    async def run(self) -> None:
        """Carry the response to its end, whatever happens on the way."""
        CURRENT.set(self._account)
        deadline = asyncio.get_running_loop().call_later(
            self._limits.response, self._news.break_in, CutShort("max_seconds")
        )
        try:
            await self._carefully(self._drive(self.run_of.first))
            if self._leaving and self._machine.phase.unfinished:
                await self._carefully(self._hand_on())
        except asyncio.CancelledError:
            await self._carefully(self._stop())
            raise
        finally:
            deadline.cancel()
            self._end()
        if self._turns.partings:
            await asyncio.wait(self._turns.partings)

    def _end(self) -> None:
        self._turns.hang_up()
        self._measured.ended()
        self._pipe.end()
        self._custody.close()
        if self._absence is not None:
            usage = self._machine.usage
            # A delta is about a token; the model's own count is better, where it came to tell it.
            made = self._delivery.deltas if usage is None else usage.output_tokens
            self._absence.end(self._means.detached, self.run_of.id, made)
        self._account.end()

    # -- news -----------------------------------------------------------------------------------

    @property
    def lease(self) -> Lease | None:
        """The right to finish the response; None before it is accepted."""
        return self._custody.lease

    @property
    def detached(self) -> bool:
        """True once the response runs on without the client that asked for it."""
        return self._absence is not None

    @property
    def unlogged(self) -> int:
        """Bytes of events that the store does not have yet."""
        log = self._custody.log
        return 0 if log is None else log.waiting

    def cancel(self) -> None:
        """End the response as cancelled, with what was made."""
        self._news.break_in(Cancelled())

    def lose_lease(self) -> None:
        """Stop and write nothing: another worker owns the response, or it was deleted.

        Its client is told of a failure. That cannot contradict the store: who takes over a response in
        the foreground never completes it, and one in the background has no client but the log's readers.

        Without effect where it is we who give the lease back, with the end or to hand over: who renews it
        may hear of that first.
        """
        if self._machine.phase.unfinished and not self._leaving:
            self._note_loss()
            self._news.break_in(self._failed(lease_lost()))

    def _note_loss(self) -> None:
        """Say once that the lease is lost; an alert looks at it."""
        if not self._custody.lost:
            self._custody.lost = True
            _log.warning("the lease of %s is lost", self.run_of.id)
            self._means.meters.lease_lost()

    def hand_over(self) -> None:
        """Stop without an end and put the run back into the queue, for another worker.

        Without effect where that worker could not know which tools were run: it would run them again.
        """
        repeatable = self.run_of.streamed or not self._machine.ran_tools
        if self.run_of.stored and repeatable and self._news.ending is None:
            self._leaving = True
            self._news.break_in(self._failed(Stopped()))

    def _client_left(self) -> None:
        """Do what the policy says (rule P3); what is being saved or over is not concerned."""
        self._account.client_gone = not self.run_of.background and self._account.status == ""
        if not self._machine.phase.unfinished or self.run_of.background:
            return
        if not self.run_of.stored or self.run_of.on_disconnect == "cancel":
            self._news.break_in(CutShort("client_disconnected"))
            return
        self._absence = Absence(
            self._limits.detached,
            self._delivery.deltas,
            lambda: self._news.break_in(CutShort("detached_limit")),
        )

    def _log_failed(self, error: EngineError) -> None:
        if isinstance(error, LeaseLost):
            self.lose_lease()
        else:
            self._news.break_in(self._failed(error))

    # -- effects --------------------------------------------------------------------------------

    async def _drive(self, received: Input) -> None:
        """Feed the machine and carry out what it asks for, until it asks for nothing more."""
        self._effects.extend(self._machine.receive(received))
        await self._work_off()

    async def _work_off(self) -> None:
        while self._effects:
            happened = await self._carry_out(self._effects.popleft())
            if happened is not None:
                self._effects.extend(self._machine.receive(happened))

    async def _carry_out(self, effect: Effect) -> Input | None:
        """Do it and return what the machine is to be told of it."""
        match effect:
            case Send(frames, last, held):
                await self._delivery.send(frames, last, held=held)
            case CallModel(turn):
                return await self._take_turn(turn)
            case Compact(wanted):
                return await self._unless_news(self._compaction.look(wanted))
            case ListTools():
                return await self._unless_news(self._tools.list())
            case RunTools():
                return await self._unless_news(self._tools.run(effect))
            case Save():
                self._saving = asyncio.ensure_future(self._save(effect))
                return await asyncio.shield(self._saving)
            case Refuse(error):
                await self._refuse(error)
            case Close():
                self._close(effect)
        return None

    def _close(self, close: Close) -> None:
        status = "lost" if self._custody.lost else close.status
        self._account.close(status, self._machine.usage, close.error)
        if self.run_of.stream:
            return
        if close.error is None:
            self._account.sent = len(close.body)
            self._pipe.answer(Answer(200, close.body))
        else:
            close.error.repeatable = not self._machine.ran_tools
            self._pipe.refuse(close.error)

    async def _unless_news(self, work: Coroutine[None, None, Input]) -> Input | None:
        """Return what comes of work that news ends at once; None to hand over."""
        ending = self._news.ending
        try:
            if ending is None:
                async with self._news.step():
                    return await work
        except TimeoutError:
            ending = self._news.ending
        except EngineError as error:
            return self._failed(error)
        finally:
            work.close()
        return None if self._leaving else ending

    # -- one model turn -------------------------------------------------------------------------

    async def _take_turn(self, turn: TurnRequest) -> Input | None:
        """Call the model, feed its answer to the machine and return how that ended; None to hand over."""
        self._custody.accept()
        ending = self._news.ending
        if ending is None:
            call, ending = await self._turns.take(turn)
            if self._news.ending is None and self._anew.allows(call, ending):
                return await self._unless_news(self._anew.begin())
        return None if self._leaving and ending is self._news.ending else ending

    def _failed(self, error: EngineError) -> Failed:
        return Failed(self._means.clock(), error)

    # -- the store ------------------------------------------------------------------------------

    async def _save(self, save: Save) -> Saved | SaveFailed:
        """Write the terminal state: the one commit that everything is held for (rule P1)."""
        try:
            with self._account.save():
                await self._custody.finish(save)
        except EngineError as error:
            _log.error("%s could not be stored: %s", self.run_of.id, error)
            if isinstance(error, LeaseLost):
                self._note_loss()
            # What follows is in no log that a reader could go on in.
            self._pipe.release()
            return SaveFailed(self._means.clock(), error)
        finally:
            self._delivery.log = None
        return Saved()

    async def _refuse(self, error: EngineError) -> None:
        """Answer with an error once the accepted row is gone; the answer is certain, whatever happens."""
        self._account.refuse(error)
        try:
            self._abandoning = asyncio.ensure_future(self._custody.abandon())
            await asyncio.shield(self._abandoning)
        finally:
            self._pipe.refuse(error)

    async def _hand_on(self) -> None:
        """Put the run back into the queue; done once, however often it is asked for."""
        self._account.close("handed_over", self._machine.usage)
        self._turns.hang_up()
        if self._releasing is None:
            self._releasing = asyncio.ensure_future(self._custody.release())
        await asyncio.shield(self._releasing)

    # -- when it does not go as planned -----------------------------------------------------------

    async def _stop(self) -> None:
        """Bring a cancelled run to a terminal state: what was made so far is kept."""
        self._news.break_in(self._failed(Stopped()))
        self._pipe.release()
        if self._leaving and self._machine.phase.unfinished:
            await self._hand_on()
            return
        await self._turns.rest()
        self._turns.hang_up()
        if self._abandoning is not None:
            await self._abandoning
        if self._saving is not None and self._machine.phase is Phase.SAVING:
            await self._drive(await self._saving)
        await self._work_off()
        if self._machine.phase.unfinished:
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
        self._turns.hang_up()
        failure = EngineError("The gateway failed; see its log.")
        for _ in range(2):
            try:
                if self._machine.phase is Phase.SAVING:
                    await self._drive(SaveFailed(self._means.clock(), failure))
                elif self._machine.phase.unfinished:
                    await self._drive(self._failed(failure))
                break
            except Exception:
                _log.exception("the run of %r could not be ended", self._machine)
        # Counts only where the client has heard nothing yet.
        self._pipe.refuse(failure)
