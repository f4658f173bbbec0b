"""`engine.response.machine`: each row of its table, what has no row, and what holds in any order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import sse
from engine.api.response_object import Usage
from engine.context.summaries import divided
from engine.errors import StorageUnavailable, UpstreamFailed
from engine.ports import ToolDefinition, ToolOutcome
from engine.response.agenda import Agenda, Listing
from engine.response.compaction import Compacted, Compaction
from engine.response.effects import CallModel, Close, Compact, ListTools, Refuse, Save, Send
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Cancelled,
    Cited,
    Content,
    ContextCompacted,
    CutShort,
    Failed,
    Fits,
    Input,
    ItemEnded,
    ItemStarted,
    ModelAnswered,
    Queued,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    RoundEnded,
    Saved,
    SaveFailed,
    SummaryDelta,
    TextDelta,
    ToolEnded,
    ToolsListed,
    TurnEnded,
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
    WaitedLong,
)
from engine.response.machine import IllegalInput, ResponseMachine
from engine.response.phase import Phase
from engine.response.transitions import TRANSITIONS
from engine.response.turn import TurnRequest
from engine.upstream.dialect import ResponsesDialect
from tests.support.playback import NOW, RESPONSE_ID, Player, machine, request
from tests.support.stream_rules import check_stream, response_of

USAGE = Usage(input_tokens=10, cached_tokens=4, output_tokens=5, reasoning_tokens=2)
ERROR = UpstreamFailed("broken")
BEGIN = Begin(TurnRequest(b"{}"))

SERVER = {
    "type": "mcp",
    "server_label": "s",
    "server_url": "https://x/",
    "require_approval": "never",
}
AGENDA = Agenda(
    request=request(tools=[SERVER]),
    encoder=ResponsesDialect(),
    replay=[],
    headers={},
    most_turns=3,
)
COMPACTION = Compaction(
    threshold=1,
    context=divided([]),
    turn=lambda: TurnRequest(b"{}"),
    goes_on=lambda items: TurnRequest(b"[%b]" % b",".join(items)),
    request=request(),
    headers={},
    seal=lambda text: text,
    open=str.encode,
)
LISTED = ToolsListed((Listing("s", [ToolDefinition(name="t", parameters=b"{}")]),))
# The list of the server's tools took the first id.
ENDED = ToolEnded(f"{RESPONSE_ID.replace('resp', 'mcp')}0001", ToolOutcome(text="done"))
TO_STREAMING: list[Input] = [Begin(AGENDA), LISTED, ModelAnswered()]
TO_RUNNING: list[Input] = [*TO_STREAMING, ItemStarted("function_call", "t"), TurnEnded(NOW, USAGE)]

EXAMPLES: dict[type, Input] = {
    Queued: Queued(),
    Begin: BEGIN,
    Fits: Fits(),
    ContextCompacted: ContextCompacted(Compacted("sealed", b"{}"), USAGE),
    ModelAnswered: ModelAnswered(),
    WaitedLong: WaitedLong(),
    ItemStarted: ItemStarted("message"),
    TextDelta: TextDelta("a"),
    Cited: Cited("【1】", "file-1", "a.txt"),
    RefusalDelta: RefusalDelta("a"),
    ArgumentsDelta: ArgumentsDelta("a"),
    ReasoningDelta: ReasoningDelta("a"),
    SummaryDelta: SummaryDelta("a"),
    UpstreamStarted: UpstreamStarted("k", "web_search_call", b',"type":"web_search_call"}'),
    UpstreamEvent: UpstreamEvent("k", "response.web_search_call.completed", b""),
    UpstreamEnded: UpstreamEnded("k", b',"type":"web_search_call"}'),
    ItemEnded: ItemEnded("completed"),
    Resumed: Resumed(TurnRequest(b"{}")),
    ToolsListed: LISTED,
    ToolEnded: ENDED,
    RoundEnded: RoundEnded(NOW),
    TurnEnded: TurnEnded(NOW, USAGE),
    Failed: Failed(NOW, ERROR),
    CutShort: CutShort("client_disconnected"),
    Cancelled: Cancelled(),
    Saved: Saved(),
    SaveFailed: SaveFailed(NOW, StorageUnavailable("gone")),
}
# What a content input needs to be open.
OPENERS: dict[type, Input] = {
    TextDelta: ItemStarted("message"),
    Cited: ItemStarted("message"),
    RefusalDelta: ItemStarted("message"),
    ArgumentsDelta: ItemStarted("function_call", "f"),
    ReasoningDelta: ItemStarted("reasoning"),
    SummaryDelta: ItemStarted("reasoning"),
    UpstreamEvent: UpstreamStarted("k", "web_search_call", b',"type":"web_search_call"}'),
    UpstreamEnded: UpstreamStarted("k", "web_search_call", b',"type":"web_search_call"}'),
}
PATHS: dict[Phase, list[Input]] = {
    Phase.NEW: [],
    Phase.QUEUED: [Queued()],
    Phase.COMPACTING: [Begin(COMPACTION)],
    Phase.LISTING: [Begin(AGENDA)],
    Phase.CALLING: [BEGIN],
    Phase.STREAMING: [BEGIN, ModelAnswered()],
    Phase.RUNNING: TO_RUNNING,
    Phase.SAVING: [BEGIN, ModelAnswered(), TurnEnded(NOW, USAGE)],
    Phase.CLOSED: [BEGIN, ModelAnswered(), TurnEnded(NOW, USAGE), Saved()],
}
# (phase, input) -> the effects' kinds and the phase it leads to, of a stored response.
ROWS: dict[tuple[Phase, type], tuple[list[type], Phase]] = {
    (Phase.NEW, Queued): ([Send], Phase.QUEUED),
    (Phase.NEW, Begin): ([CallModel], Phase.CALLING),
    (Phase.QUEUED, Begin): ([Send, CallModel], Phase.CALLING),
    (Phase.QUEUED, Failed): ([Save], Phase.SAVING),
    (Phase.QUEUED, Cancelled): ([Save], Phase.SAVING),
    (Phase.COMPACTING, WaitedLong): ([Send], Phase.COMPACTING),
    (Phase.COMPACTING, Fits): ([CallModel], Phase.CALLING),
    (Phase.COMPACTING, ContextCompacted): ([Send, CallModel], Phase.CALLING),
    (Phase.COMPACTING, Resumed): ([Send, Compact], Phase.COMPACTING),
    (Phase.COMPACTING, Failed): ([Refuse], Phase.CLOSED),
    (Phase.COMPACTING, CutShort): ([Send, Save], Phase.SAVING),
    (Phase.COMPACTING, Cancelled): ([Send, Save], Phase.SAVING),
    (Phase.LISTING, WaitedLong): ([Send], Phase.LISTING),
    (Phase.LISTING, ToolsListed): ([CallModel], Phase.CALLING),
    (Phase.LISTING, Resumed): ([Send, ListTools], Phase.LISTING),
    (Phase.LISTING, Failed): ([Refuse], Phase.CLOSED),
    (Phase.LISTING, CutShort): ([Send, Save], Phase.SAVING),
    (Phase.LISTING, Cancelled): ([Send, Save], Phase.SAVING),
    (Phase.RUNNING, ToolEnded): ([Send], Phase.RUNNING),
    (Phase.RUNNING, RoundEnded): ([CallModel], Phase.CALLING),
    (Phase.RUNNING, Resumed): ([Send, CallModel], Phase.CALLING),
    (Phase.RUNNING, Failed): ([Send, Save], Phase.SAVING),
    (Phase.RUNNING, CutShort): ([Send, Save], Phase.SAVING),
    (Phase.RUNNING, Cancelled): ([Send, Save], Phase.SAVING),
    (Phase.CALLING, WaitedLong): ([Send], Phase.CALLING),
    (Phase.CALLING, ModelAnswered): ([Send], Phase.STREAMING),
    (Phase.CALLING, Failed): ([Refuse], Phase.CLOSED),
    (Phase.CALLING, CutShort): ([Send, Save], Phase.SAVING),
    (Phase.CALLING, Cancelled): ([Send, Save], Phase.SAVING),
    (Phase.STREAMING, ItemStarted): ([Send], Phase.STREAMING),
    (Phase.STREAMING, TextDelta): ([Send], Phase.STREAMING),
    (Phase.STREAMING, Cited): ([Send], Phase.STREAMING),
    (Phase.STREAMING, RefusalDelta): ([Send], Phase.STREAMING),
    (Phase.STREAMING, ArgumentsDelta): ([Send], Phase.STREAMING),
    (Phase.STREAMING, ReasoningDelta): ([Send], Phase.STREAMING),
    (Phase.STREAMING, SummaryDelta): ([Send], Phase.STREAMING),
    (Phase.STREAMING, UpstreamStarted): ([Send], Phase.STREAMING),
    (Phase.STREAMING, UpstreamEvent): ([Send], Phase.STREAMING),
    (Phase.STREAMING, UpstreamEnded): ([Send], Phase.STREAMING),
    (Phase.STREAMING, ItemEnded): ([Send], Phase.STREAMING),
    (Phase.STREAMING, Resumed): ([Send, CallModel], Phase.CALLING),
    (Phase.STREAMING, TurnEnded): ([Save], Phase.SAVING),
    (Phase.STREAMING, Failed): ([Save], Phase.SAVING),
    (Phase.STREAMING, CutShort): ([Save], Phase.SAVING),
    (Phase.STREAMING, Cancelled): ([Save], Phase.SAVING),
    (Phase.SAVING, Saved): ([Send, Close], Phase.CLOSED),
    (Phase.SAVING, SaveFailed): ([Send, Close], Phase.CLOSED),
}

RESUMED = {
    Phase.COMPACTING: Resumed(COMPACTION),
    Phase.LISTING: Resumed(AGENDA),
    Phase.RUNNING: Resumed(AGENDA),
}


def at(phase: Phase, *, store: bool = True) -> ResponseMachine:
    """Return a machine in a phase."""
    made = machine(store=store)
    for received in PATHS[phase]:
        made.receive(received)
    assert made.phase is phase
    return made


@pytest.mark.parametrize(("phase", "kind"), ROWS, ids=lambda x: getattr(x, "__name__", x))
def test_a_row_of_the_table_does_what_it_says(phase: Phase, kind: type) -> None:
    """Its effects and its phase."""
    made = at(phase)
    if kind in OPENERS:
        made.receive(OPENERS[kind])
    effects, leads_to = ROWS[phase, kind]
    # What was asked for by an agenda goes on by it.
    example = RESUMED.get(phase, EXAMPLES[kind]) if kind is Resumed else EXAMPLES[kind]

    assert [type(effect) for effect in made.receive(example)] == effects
    assert made.phase is leads_to


def test_the_table_has_exactly_these_rows() -> None:
    """A new row needs its test."""
    rows = {(phase, kind) for phase, found in TRANSITIONS.items() for kind in found}
    assert rows == set(ROWS)
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", Phase)
def test_an_input_without_a_row_is_refused(phase: Phase, kind: type) -> None:
    """Nothing is ignored, and nothing changes."""
    if (phase, kind) in ROWS:
        return
    made = at(phase)

    with pytest.raises(IllegalInput, match=kind.__name__):
        made.receive(EXAMPLES[kind])
    assert made.phase is phase


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind in OPENERS])
def test_a_delta_without_its_item_is_a_bug(kind: type) -> None:
    """Of the normaliser."""
    with pytest.raises(AssertionError):
        at(Phase.STREAMING).receive(EXAMPLES[kind])


# -- the ends ----------------------------------------------------------------------------------------


def test_a_response_that_is_not_stored_closes_at_once() -> None:
    """`store: false` skips SAVING."""
    for kind in (TurnEnded, Failed, CutShort):
        made = at(Phase.STREAMING, store=False)
        assert [type(e) for e in made.receive(EXAMPLES[kind])] == [Send, Close]
        assert made.phase is Phase.CLOSED


def test_a_failure_after_the_stream_was_opened_is_saved_and_told() -> None:
    """R16: no status is left to say it with."""
    made = at(Phase.CALLING)
    made.receive(WaitedLong())
    assert [type(e) for e in made.receive(Failed(NOW, ERROR))] == [Save]


def test_the_stream_is_opened_once() -> None:
    """R2: whether by waiting or by the model's answer."""
    made = at(Phase.CALLING)
    [opened] = made.receive(WaitedLong())
    assert isinstance(opened, Send)
    assert opened.frames.count(b"event: ") == 2
    assert made.receive(WaitedLong()) == [Send(b"", 1)]
    assert made.receive(ModelAnswered()) == []


def test_nothing_of_the_end_is_out_before_it_is_saved() -> None:
    """P1: the terminal event is held by Save and released by Saved, byte for byte."""
    made = at(Phase.STREAMING)
    made.receive(ItemStarted("message"))
    made.receive(TextDelta("Hi"))
    sent, save = made.receive(TurnEnded(NOW + 5, USAGE))
    assert isinstance(sent, Send)
    assert b"response.completed" not in sent.frames
    assert isinstance(save, Save)
    assert json.loads(save.head)["status"] == "completed"
    assert json.loads(save.head)["completed_at"] == NOW + 5
    assert save.ending.first == save.ending.last == sent.last + 1
    last, close = made.receive(Saved())
    assert last == Send(save.ending.frames + sse.DONE, save.ending.last)
    assert save.ending.frames.count(b"response.completed") == 2
    assert isinstance(close, Close)
    assert close.error is None


def test_a_completion_that_could_not_be_saved_is_a_failure() -> None:
    """P1, R12: with the store's error; the terminal event says failed, `completed_at` is gone."""
    made = at(Phase.SAVING)
    held = made.sequence - 1
    last, close = made.receive(SaveFailed(NOW, StorageUnavailable("gone")))
    assert isinstance(last, Send)
    assert (b'"sequence_number":%d,' % held) in last.frames
    assert last.last == held + 1
    assert b"response.completed" not in last.frames
    assert isinstance(close, Close)
    assert isinstance(close.error, StorageUnavailable)
    assert close.status == "failed"


@pytest.mark.parametrize("opened", [True, False])
def test_a_response_that_is_cut_short_says_why(opened: bool) -> None:
    """P3, R9: incomplete with the reason; before the first token it is opened for its readers."""
    made = at(Phase.STREAMING if opened else Phase.CALLING)
    *_, save = made.receive(CutShort("detached_limit"))
    assert isinstance(save, Save)
    assert save.status == "incomplete"
    assert json.loads(save.head)["incomplete_details"] == {"reason": "detached_limit"}
    assert b"event: response.incomplete\n" in save.ending.frames


def test_a_cancelled_response_ends_with_the_event_of_an_incomplete_one() -> None:
    """R1: there are three terminal events (docs/adr/0008); the object in it says cancelled."""
    player = Player(machine())
    for received in (BEGIN, ModelAnswered(), ItemStarted("message"), TextDelta("a"), Cancelled()):
        player.feed(received)

    events = check_stream(player.played.raw)
    response = response_of(events)
    assert events[-1]["type"] == "response.incomplete"
    assert (response["status"], response["incomplete_details"]) == ("cancelled", None)
    assert response["output"][0]["status"] == "incomplete"
    assert player.played.response == response


def test_usage_is_shown_with_its_sum() -> None:
    """R10: all five numbers."""
    made = at(Phase.STREAMING)
    [save] = made.receive(TurnEnded(NOW, USAGE))
    assert isinstance(save, Save)
    assert json.loads(save.head)["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


@pytest.mark.parametrize("waited", [True, False])
@pytest.mark.parametrize("ending", ["completed", "incomplete", "failed", "not saved"])
def test_every_end_is_a_stream_that_keeps_the_rules(ending: str, waited: bool) -> None:
    """R1, R9, R12."""
    player = Player(machine(), save_error=ERROR if ending == "not saved" else None)
    player.feed(BEGIN)
    if waited:
        player.feed(WaitedLong())
    for received in (
        ModelAnswered(),
        ItemStarted("message"),
        TextDelta("a"),
        ItemStarted("reasoning"),
    ):
        player.feed(received)
    player.feed(ReasoningDelta("b"))
    player.feed(
        Failed(NOW, ERROR)
        if ending == "failed"
        else TurnEnded(NOW, USAGE, "max_output_tokens" if ending == "incomplete" else None)
    )

    response = response_of(check_stream(player.played.raw))
    assert response["status"] == ("failed" if ending == "not saved" else ending)
    assert player.played.response == response


def test_a_machine_tells_where_it_is() -> None:
    """For the log."""
    assert repr(at(Phase.STREAMING)) == ("<ResponseMachine streaming opened=True events=2 items=0>")


# -- any order ---------------------------------------------------------------------------------------

TEXT = st.text(max_size=4)
DELTAS: dict[str, list[Callable[[str], Content]]] = {
    "message": [TextDelta, RefusalDelta, lambda text: Cited(text, "file-1", "a.txt")],
    "reasoning": [ReasoningDelta, SummaryDelta],
    "function_call": [ArgumentsDelta],
}


@st.composite
def items(draw: st.DrawFn) -> list[Content]:
    """An item and its deltas; the arguments of a call are JSON, split anywhere."""
    kind = draw(st.sampled_from(["message", "reasoning", "function_call"]))
    if kind == "function_call":
        arguments = draw(st.sampled_from(["", "{}", '{"city": "Paris", "n": [1, 2]}', " "]))
        size = draw(st.integers(1, 9))
        pieces = [arguments[i : i + size] for i in range(0, len(arguments), size)]
        return [ItemStarted("function_call", "f"), *map(ArgumentsDelta, pieces)]
    deltas = [
        draw(st.sampled_from(DELTAS[kind]))(draw(TEXT)) for _ in range(draw(st.integers(0, 4)))
    ]
    start = ItemStarted("message") if kind == "message" else ItemStarted("reasoning")
    return [start, *deltas]


CONTENTS = st.lists(items(), max_size=5).map(lambda found: list(itertools.chain(*found)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(CONTENTS, st.sampled_from([None, "max_output_tokens"]))
def test_any_content_makes_a_stream_that_keeps_the_rules(
    contents: list[Content], reason: str | None
) -> None:
    """R1-R7, R9: all of them, in any order of items and parts."""
    player = Player(machine())
    for received in (BEGIN, ModelAnswered(), *contents, TurnEnded(NOW, USAGE, reason)):
        player.feed(received)

    response = response_of(check_stream(player.played.raw))
    started = [c.kind for c in contents if isinstance(c, ItemStarted)]
    assert [item["type"] for item in response["output"]] == started
    assert player.machine.held >= sum(len(getattr(c, "text", "")) for c in contents)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(CONTENTS, st.data(), st.booleans(), st.booleans())
def test_a_failure_at_any_step_gives_one_terminal_event(
    contents: list[Content], data: st.DataObject, store: bool, saves: bool
) -> None:
    """R1, R12: also where the store fails on top of it; `Close` comes last and once."""
    steps: list[Input] = [BEGIN, WaitedLong(), ModelAnswered(), *contents]
    cut = data.draw(st.integers(1, len(steps)))
    player = Player(machine(store=store), save_error=None if saves else StorageUnavailable("gone"))
    for received in (*steps[:cut], Failed(NOW, ERROR)):
        player.feed(received)
    played = player.played

    assert player.machine.phase is Phase.CLOSED
    if cut == 1:
        assert played.refused is ERROR
        assert (played.raw, played.closed, played.saved) == (b"", None, None)
        return
    assert response_of(check_stream(played.raw))["status"] == "failed"
    assert played.closed is not None
    assert (played.saved is not None) == store
