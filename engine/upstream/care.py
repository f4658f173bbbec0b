"""What is looked at once more when a turn has ended, where the settings ask for it. Pure.

A server that ignores a schema, or whose sampling broke off in the middle of it, answers with text that the
client's parser chokes on: it is better told. What would take too long to look at passes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from engine.errors import UpstreamFailed
from engine.response.turn import TurnRules
from engine.upstream.rules import Outcome
from engine.upstream.schema_check import mismatch

# Beyond this, looking at it takes too long.
_MOST_CHARACTERS = 1 << 20


class Made(msgspec.Struct, frozen=True):
    """What a turn let through: its text, and how many characters of text, calls and reasoning.

    `repairs` are the kinds of quirks of the server that were put right on the way.
    """

    text: str
    shown: int
    thought: int
    called: bool
    repairs: frozenset[str] = frozenset()


class Care(msgspec.Struct, frozen=True, kw_only=True):
    """`check_output`: a text that is not the JSON that was asked for fails the response; with `ask_again` the
    model is asked a second time before that, where nobody has seen the first answer.

    `estimate_reasoning`: where a server counts no tokens of reasoning, they are estimated by its length.
    """

    check_output: bool = False
    ask_again: bool = False
    estimate_reasoning: bool = False

    def judged(self, outcome: Outcome, rules: TurnRules, made: Made) -> Outcome:
        """Return the outcome of a turn as it is to be told."""
        if outcome.error is not None:
            return outcome
        if self.estimate_reasoning:
            outcome = _estimated(outcome, made)
        problem = self.rejects(outcome, rules, made)
        if problem is None:
            return outcome
        told = f"The model's answer is not what 'text.format' asks for: {problem}."
        return msgspec.structs.replace(outcome, error=UpstreamFailed(told))

    def rejects(self, outcome: Outcome, rules: TurnRules, made: Made) -> str | None:
        """Return what is wrong with a whole answer; None where it is as wanted, or not looked at."""
        if not self.check_output or outcome.error is not None:
            return None
        if outcome.incomplete_reason is not None or made.called or rules.format is None:
            return None
        return _problem(made.text, rules.format)


def _estimated(outcome: Outcome, made: Made) -> Outcome:
    usage, characters = outcome.usage, made.shown + made.thought
    if usage is None or usage.reasoning_tokens or not made.thought:
        return outcome
    tokens = usage.output_tokens * made.thought // characters
    return msgspec.structs.replace(
        outcome, usage=msgspec.structs.replace(usage, reasoning_tokens=tokens)
    )


def _problem(text: str, wanted: Mapping[str, object]) -> str | None:
    """Return what is wrong with the text; None where it is as wanted, or cannot be judged."""
    if len(text) > _MOST_CHARACTERS or not text:
        # No text at all is a refusal, or a model that had nothing to say.
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "it is not JSON"
    if wanted.get("type") == "json_object":
        return None if isinstance(value, dict) else "it is no object"
    return mismatch(value, wanted.get("schema"))
