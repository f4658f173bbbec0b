"""From a turn to a verdict: is what a client got right, and was it right before Holdfast had it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.upstream.dialect import ResponsesDialect
from extproc.doctor import stream_faults
from extproc.doctor.findings import Finding, Verdict
from extproc.doctor.rehearsal import Turn
from extproc.doctor.stream_faults import Fault, faults_of

Check = Callable[[dict[str, Any]], str]
"""Looks at the response object that a client got and says what is good about it; raises Wrong or NotSeen."""

WHOLE = Fault("whole", "a stream was asked for and the answer came whole")

VLLM = "https://github.com/vllm-project/vllm/issues"
ISSUES: Mapping[str, tuple[str, ...]] = {
    stream_faults.MARKUP.code: (f"{VLLM}/29725",),
    stream_faults.UNSTREAMED.code: (f"{VLLM}/29725",),
    stream_faults.ARGUMENTS.code: (f"{VLLM}/36435",),
    stream_faults.CALL_IDS.code: (f"{VLLM}/47916",),
    stream_faults.ITEM_IDS.code: (f"{VLLM}/47916",),
    stream_faults.NO_TERMINAL.code: ("https://github.com/ollama/ollama/issues/17118",),
}
"""What is known of a fault, by its code."""

NO_PARSER = (
    "the server has no tool parser for this model: start vLLM with --enable-auto-tool-choice and "
    "--tool-call-parser"
)
NO_REASONING_PARSER = (
    "start the server with a reasoning parser for this model (vLLM: --reasoning-parser)"
)


class Wrong(Exception):
    """What a client got is wrong; `advice` is what may help."""

    def __init__(self, what: str, *, advice: str | None = None, issue: str | None = None) -> None:
        super().__init__(what)
        self.advice = advice
        self.issues = () if issue is None else (issue,)


class NotSeen(Exception):
    """The model did not do what was to be looked at."""


def judge(turn: Turn, check: Check, about: Sequence[Fault] | None = None) -> Finding:
    """Return what a turn shows; `about` are the only faults of the server that count here (None: all)."""
    theirs = [fault for fault in server_faults(turn) if about is None or fault in about]
    issues = issues_of(theirs)
    if turn.error is not None:
        return Finding(Verdict.BROKEN, turn.error, issues)
    if ours := (faults_of(turn.events) if turn.raw else []):
        advice = NO_PARSER if stream_faults.MARKUP in ours else None
        return Finding(Verdict.BROKEN, f"after all repair, {listed(ours)}", issues_of(ours), advice)
    try:
        good = check(turn.response)
    except NotSeen as unseen:
        return Finding(Verdict.UNSEEN, str(unseen))
    except Wrong as wrong:
        known = tuple(dict.fromkeys([*wrong.issues, *issues]))
        return Finding(Verdict.BROKEN, str(wrong), known, wrong.advice)
    if theirs:
        return Finding(Verdict.REPAIRED, listed(theirs), issues)
    return Finding(Verdict.WORKS, good)


def server_faults(turn: Turn) -> list[Fault]:
    """Return what was wrong with the server's own answer."""
    if turn.status != 200:
        return []
    if "event-stream" not in turn.media_type:
        return [WHOLE]
    # Chat completions have no events that could be wrong in these ways.
    return faults_of(turn.server_events) if turn.path == ResponsesDialect.path else []


def issues_of(faults: Sequence[Fault]) -> tuple[str, ...]:
    """Return the known issues behind faults, each once."""
    return tuple(dict.fromkeys(issue for f in faults for issue in ISSUES.get(f.code, ())))


def listed(faults: Sequence[Fault]) -> str:
    """Return faults as one sentence."""
    return "; ".join(fault.text for fault in faults)


# -- what is in a response -------------------------------------------------------------------------------


def text_of(response: Mapping[str, Any]) -> str:
    """Return all text of the messages."""
    return "".join(
        str(part.get("text") or "")
        for item in items_of(response, "message")
        for part in item.get("content") or ()
    )


def items_of(response: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """Return the output items of a type."""
    return [item for item in response.get("output") or () if item.get("type") == kind]
