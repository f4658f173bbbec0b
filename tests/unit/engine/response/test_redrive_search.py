"""Logs with searches and citations, read back after any number of deaths (P4, T8)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.file_search import DEFINITION
from engine.api.json import encode, read_object
from engine.api.ownership import ToolPolicy
from engine.api.request import parse_create
from engine.context.sources import Source
from engine.ids import ItemIds
from engine.limits import Limits
from engine.ports import ToolDefinition, ToolOutcome
from engine.response.agenda import Agenda, Listing
from engine.response.effects import RunTools
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Cited,
    Input,
    ItemStarted,
    ModelAnswered,
    Queued,
    Resumed,
    RoundEnded,
    TextDelta,
    ToolEnded,
    ToolsListed,
    TurnEnded,
)
from engine.response.machine import ResponseMachine
from engine.response.notes import without_held
from engine.response.phase import Phase
from engine.response.redrive import NotRedrivable, Redrive, Redriven
from engine.upstream.dialect import ResponsesDialect
from tests.support.fake_tools import server
from tests.support.playback import NOW, RESPONSE_ID, machine
from tests.support.stream_rules import check_stream, response_of
from tests.unit.engine.response.test_redrive import beyond
from tests.unit.engine.response.test_redrive_tools import DIED, USAGE, Tools, frames_of

FIELDS = {
    "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}, server("s")],
    "background": True,
}
LISTED = ToolsListed(
    (
        Listing("file_search", [DEFINITION]),
        Listing("s", [ToolDefinition(name="t", parameters=b"{}")]),
    )
)
RESULTS = encode(
    [
        {
            "attributes": {},
            "file_id": "file-a",
            "filename": "a.md",
            "score": 0.5,
            "text": "\n【1】\n\nx",
        }
    ]
)
FOUND = ToolOutcome(text="", fields=(("results", RESULTS),))
BROKEN = ToolOutcome(text="The index is away.", error=b"null")
OTHER = ToolOutcome(text="other")
SEARCH: list[Input] = [
    ItemStarted("function_call", "file_search"),
    ArgumentsDelta('{"queries": ["a'),
    ArgumentsDelta('b"]}'),
]
WRONG: list[Input] = [ItemStarted("function_call", "file_search"), ArgumentsDelta("{nonsense")]
CITING: list[Input] = [
    ItemStarted("message"),
    TextDelta("so"),
    Cited(" 【1, 2】", "file-a", "a.md"),
    Cited("", "file-b", "b.md"),
    TextDelta("."),
]
FIRST: list[Input] = [ItemStarted("message"), Cited("【1】", "file-a", "a.md"), TextDelta(" ok")]
CALL: list[Input] = [ItemStarted("function_call", "t"), ArgumentsDelta("{}")]
PARTS = {"search": SEARCH, "wrong": WRONG, "citing": CITING, "first": FIRST, "call": CALL}


class Case:
    """A request with or without its results shown."""

    def __init__(self, *, included: bool) -> None:
        include = ["file_search_call.results"] if included else []
        body = encode({"model": "m", "input": "hi", "stream": True, "include": include, **FIELDS})
        policy = ToolPolicy(file_search=True)
        self.request = parse_create(read_object(body), ItemIds(RESPONSE_ID), Limits(), policy)
        self.agenda = Agenda(
            request=self.request, encoder=ResponsesDialect(), replay=[], headers={}, most_turns=100
        )

    def fresh(self) -> ResponseMachine:
        return machine(self.request)

    def redriven(self, log: list[bytes]) -> Redriven:
        redrive = Redrive(self.fresh(), queued=True, turn=self.agenda)
        for frame in log:
            redrive.feed(frame)
        return redrive.end()

    def begun(self) -> list[Input]:
        return [Queued(), Begin(self.agenda), LISTED, ModelAnswered()]

    def resume(self, player: Tools) -> None:
        player.feed(Begin(self.agenda) if self._queued(player) else Resumed(self.agenda))
        if player.machine.phase is Phase.LISTING:
            player.feed(LISTED)
        player.feed(ModelAnswered())

    @staticmethod
    def _queued(player: Tools) -> bool:
        return player.machine.phase is Phase.QUEUED


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), st.booleans())
def test_any_log_with_searches_is_taken_over_any_number_of_times(
    data: st.DataObject, included: bool
) -> None:
    """P4, T8, R4, R5: byte for byte, wherever it ends."""
    case = Case(included=included)
    player = Tools(case.fresh())
    for received in case.begun():
        player.feed(received)
    log: list[bytes] = []
    made = b""
    for _ in range(3):
        for _ in range(data.draw(st.integers(0, 2))):
            drawn = data.draw(st.lists(st.sampled_from(list(PARTS)), max_size=4))
            for received in (r for part in [*drawn, "search"] for r in PARTS[part]):
                player.feed(received)
            player.feed(TurnEnded(NOW, USAGE))
            assert player.round is not None
            if not _answer(player, player.round, data):
                break
            player.feed(RoundEnded(NOW))
            player.feed(ModelAnswered())
        log = [*log, *frames_of(made + player.played.raw)]
        log = log[: data.draw(st.integers(0, len(log)))]
        found = case.redriven(log)
        player, made = Tools(found.machine), beyond(found)
        case.resume(player)
    player.feed(DIED)
    raw = b"".join([*log, made, player.played.raw])
    assert response_of(check_stream(raw, taken_over=True))["status"] == "failed"


def _answer(player: Tools, asked: RunTools, data: st.DataObject) -> bool:
    """End some calls of a round; True if all."""
    answered = data.draw(st.integers(0, len(asked.calls)))
    for called in asked.calls[:answered]:
        wrong = called.arguments == b"{nonsense"
        outcome = BROKEN if wrong or data.draw(st.booleans()) else FOUND
        player.feed(ToolEnded(called.item_id, outcome if called.label != "s" else OTHER))
    return answered == len(asked.calls)


@pytest.mark.parametrize("included", [False, True])
def test_a_successor_asks_what_the_dead_one_would_have_asked(included: bool) -> None:
    """P4, M9, T8: the arguments, what was found, its numbers and what may be cited come from the log."""
    case = Case(included=included)
    player = Tools(case.fresh())
    for received in (*case.begun(), *CITING, *SEARCH, *WRONG, TurnEnded(NOW, USAGE)):
        player.feed(received)
    assert player.round is not None
    for called, outcome in zip(player.round.calls, (FOUND, BROKEN), strict=True):
        player.feed(ToolEnded(called.item_id, outcome))
    log = frames_of(player.played.raw)
    player.feed(RoundEnded(NOW))
    asked = player.asked[-1].turn

    successor = Tools(case.redriven(log).machine)
    successor.feed(Resumed(case.agenda))
    [again] = successor.asked
    assert again.turn == asked
    assert asked.rules.sources.find(1) == Source("file-a", "a.md")
    said = [i for i in msgspec.json.decode(asked.body)["input"] if i.get("role") == "assistant"]
    assert [item["content"] for item in said] == ["so 【1, 2】."]


@pytest.mark.parametrize("included", [False, True])
def test_no_client_sees_what_is_held(included: bool) -> None:
    """X4: the notes are lines of their own, and nothing else goes with them."""
    case = Case(included=included)
    player = Tools(case.fresh())
    for received in (*case.begun(), *CITING, *SEARCH, TurnEnded(NOW, None)):
        player.feed(received)
    assert player.round is not None
    player.feed(ToolEnded(player.round.calls[0].item_id, FOUND))
    raw = player.played.raw
    shown = without_held(raw)
    assert raw.count(b": held ") == 3
    assert b": held " not in shown
    assert (b"a.md" in shown.partition(b"file_search_call.completed")[2]) == included
    assert [line for line in raw.split(b"\n") if not line.startswith(b": held")] == shown.split(
        b"\n"
    )


def test_a_log_with_a_citation_of_nothing_is_refused() -> None:
    """P4: rather than continued wrongly."""
    case = Case(included=False)
    player = Tools(case.fresh())
    for received in (*case.begun(), *CITING):
        player.feed(received)
    log = player.played.raw.replace(b',"annotation":', b',"other":')
    with pytest.raises(NotRedrivable):
        case.redriven([log])
