"""`engine.upstream.care`: what is looked at once more when a turn has ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.response_object import Usage
from engine.response.turn import TurnRules
from engine.upstream.care import Care, Made
from engine.upstream.choice import Choice
from engine.upstream.rules import Outcome
from tests.support import replies
from tests.support.engine_rig import Rig, final
from tests.support.fake_model import FakeModel, frames_of
from tests.support.replies import call, reasoning, text
from tests.support.scripts import CHAT, RESPONSES

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"type": "string", "pattern": "(a+)+$"}},
    "required": ["n"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}
ANY_OBJECT = {"type": "json_object"}
CHECKING = Care(check_output=True)
ENDED = Outcome()


def problem(said: str, form: Any = FORMAT, **made: Any) -> str | None:
    judged = CHECKING.judged(ENDED, TurnRules(format=form), Made(said, len(said), 0, False))
    return None if judged.error is None else judged.error.message.partition("asks for: ")[2]


@pytest.mark.parametrize(
    ("said", "form", "expected"),
    [
        ('{"n": 1}', FORMAT, None),
        ('{"n": 1.5}', FORMAT, "at $.n, 1.5 is not of type 'integer'."),
        ("{}", FORMAT, "at $, 'n' is a required property."),
        ('```json\n{"n": 1}\n```', FORMAT, "it is not JSON."),
        ('{"n": 1', FORMAT, "it is not JSON."),
        ("[" * 100_000, FORMAT, "it is not JSON."),
        ('{"n": 1}', ANY_OBJECT, None),
        ("[1]", ANY_OBJECT, "it is no object."),
        ("prose", None, None),
        # A refusal, or nothing to say.
        ("", FORMAT, None),
        # The server took the schema; we cannot judge by it.
        ("1", {"type": "json_schema", "schema": {"type": 7}}, None),
        ("1", {"type": "json_schema", "schema": {"$ref": "http://127.0.0.1:1/x"}}, None),
    ],
)
def test_a_text_is_judged_by_what_was_asked_for(said: str, form: Any, expected: str | None) -> None:
    """H1: no schema is fetched from anywhere, and what cannot be judged passes."""
    assert problem(said, form) == expected


def test_patterns_are_not_matched() -> None:
    """X5: one that backtracks would hold up the whole worker."""
    assert problem(json.dumps({"n": 1, "s": "a" * 64 + "b"})) is None


@pytest.mark.parametrize(
    ("outcome", "called"), [(Outcome(incomplete_reason="max_output_tokens"), False), (ENDED, True)]
)
def test_what_is_no_whole_answer_is_not_judged(outcome: Outcome, called: bool) -> None:
    """R9: a cut text says so already; beside calls there is no answer yet."""
    made = Made("not json", 8, 0, called)
    assert CHECKING.judged(outcome, TurnRules(format=FORMAT), made) is outcome


@pytest.mark.parametrize("dialect", ["responses", "chat"])
@pytest.mark.parametrize("checking", [True, False])
async def test_an_answer_of_another_form_fails_the_response(dialect: str, checking: bool) -> None:
    """R1, R12: if the settings say so; what was made is kept."""
    path = CHAT if dialect == "chat" else RESPONSES
    frames = frames_of(replies.stream(text('{"n": ', '"one"}')), path=path)
    care = Care(check_output=checking)
    rig = Rig(FakeModel(*frames), choice=Choice(dialect, care=care))
    response = final(await rig.stream(text={"format": FORMAT}))
    assert response["status"] == ("failed" if checking else "completed")
    assert response["output"][0]["content"][0]["text"] == '{"n": "one"}'
    if checking:
        assert "at $.n" in response["error"]["message"]


async def test_tokens_of_reasoning_are_estimated_by_their_share() -> None:
    """R10: only if the settings say so."""
    parts = (reasoning("think" * 6), text("hello"), call("f", "{}"))
    frames = frames_of(replies.stream(*parts), path=CHAT)
    care = Care(estimate_reasoning=True)
    rig = Rig(FakeModel(*frames), choice=Choice("chat", care=care))
    usage = final(await rig.stream(tools=[{"type": "function", "name": "f"}]))["usage"]
    share = usage["output_tokens"] * 30 // 37
    assert usage["output_tokens_details"]["reasoning_tokens"] == share


def test_tokens_that_the_server_counted_are_not_estimated() -> None:
    """R10: nor where there was no reasoning, or no count of anything."""
    care, made = Care(estimate_reasoning=True), Made("ab", 2, 2, False)
    counted = Outcome(usage=Usage(1, 0, 9, 3))
    assert care.judged(counted, TurnRules(), made) is counted
    plain = Outcome(usage=Usage(1, 0, 9, 0))
    assert care.judged(plain, TurnRules(), Made("ab", 2, 0, False)) is plain
    assert care.judged(ENDED, TurnRules(), made) is ENDED
