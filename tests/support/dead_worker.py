"""Leaves what a worker leaves that is killed: an accepted response, a log, and a lease that runs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from engine.intake import Caller
from engine.ports import EventBatch, Lease
from engine.response.compaction import Compaction
from engine.response.effects import Send
from engine.response.inputs import Begin, Input, ModelAnswered
from tests.support.engine_rig import CALLER, Rig

GONE = 0.0
"""Seconds of a lease that has run out whenever anybody looks."""


Looked = Callable[[Compaction], Input]
"""What a look at the context comes to."""


async def leave(
    rig: Rig,
    *inputs: Input,
    caller: Caller = CALLER,
    looked: Looked | None = None,
    **fields: Any,
) -> Lease:
    """Accept a response in the rig's name, carry it as far as that and log it; return the dead lease.

    A response in the background is left in the queue where there are no inputs.
    """
    body = json.dumps({"model": "m", "input": "hi", **fields}).encode()
    run = await rig.admit(body, caller)
    assert run.new is not None
    lease = await rig.store.accept(run.new)
    if run.background and inputs:
        [claim] = await rig.store.claim(rig.live.worker, rig.limits.lease, queued=1, expired=0)
        lease = claim.lease
    if inputs:
        assert isinstance(run.first, Begin)
        before: list[Input] = [run.first]
        if looked is not None:
            assert isinstance(run.first.turn, Compaction)
            before.append(looked(run.first.turn))
        await _log(rig, lease, run.machine, run.streamed, (*before, ModelAnswered(), *inputs))
    return lease


async def _log(rig: Rig, lease: Lease, machine: Any, streamed: bool, inputs: Any) -> None:
    first = machine.sequence
    frames, last = [], first - 1
    for received in inputs:
        assert not isinstance(received, Begin) or received.turn
        for effect in machine.receive(received):
            if isinstance(effect, Send):
                frames.append(effect.frames)
                last = effect.last
    if streamed:
        await rig.store.append(lease, EventBatch(first, last, b"".join(frames)))
