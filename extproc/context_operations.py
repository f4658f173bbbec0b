"""Puts together what looks at contexts: summaries, the operation that makes them, and the one that counts."""

from __future__ import annotations

import os

from engine.compacting import Compacting
from engine.context.summaries import PROMPT
from engine.counting import Counting
from engine.limits import Limits
from engine.lines import Lines
from engine.ports import Clock, ModelClient, Sealing, Store
from engine.ports.meters import NO_METERS, Meters
from engine.references import Attach
from engine.retries import RetryBudget
from engine.summaries import Summaries
from engine.token_counts import TokenCounts
from engine.toolbox import Toolbox
from engine.upstream.choice import Choice
from extproc.settings_context import Context, read_prompt


class ContextParts:
    """Those of one worker."""

    def __init__(
        self,
        settings: Context,
        model: ModelClient,
        limits: Limits,
        choice: Choice,
        budget: RetryBudget,
        meters: Meters = NO_METERS,
    ) -> None:
        file = settings.summary_prompt_file
        self.counting = Counting(model, estimates=settings.estimate_tokens)
        self.summaries = Summaries(
            model,
            limits,
            choice,
            budget=budget,
            prompt=PROMPT if file is None else read_prompt(file),
            most_tokens=settings.summary_tokens,
            meters=meters,
        )
        self._limits = limits
        self._choice = choice

    def operations(
        self,
        store: Store,
        lines: Lines,
        tools: Toolbox,
        sealing: Sealing,
        attach: Attach,
        clock: Clock,
    ) -> tuple[Compacting, TokenCounts]:
        """Return the operations on contexts."""
        compacting = Compacting(
            store,
            self.summaries,
            self._choice,
            lines=lines,
            attach=attach,
            sealing=sealing,
            limits=self._limits,
            clock=clock,
            randomness=os.urandom,
        )
        counts = TokenCounts(
            store,
            self.counting,
            self._choice,
            lines=lines,
            attach=attach,
            tools=tools,
            sealing=sealing,
            limits=self._limits,
        )
        return compacting, counts
