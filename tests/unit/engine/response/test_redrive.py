"""`engine.response.redrive`: a response goes on where its worker died, in one stream (rules P4, R1-R7)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.request import CreateRequest
from engine.api.response_object import Usage
from engine.errors import EngineError
from engine.ports import EventBatch
from engine.response.effects import Send
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Content,
    Failed,
    Input,
    ItemStarted,
    ModelAnswered,
    Queued,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    SummaryDelta,
    TextDelta,
    TurnEnded,
)
from engine.response.machine import ResponseMachine
from engine.response.phase import Phase
from engine.response.redrive import NotRedrivable, Redrive, Redriven
from engine.response.turn import TurnRequest, TurnRules
from engine.upstream.responses import ResponsesStream
from tests.support import transcripts
from tests.support.playback import NOW, Player, functions, machine, read, request
from tests.support.stream_rules import check_stream, response_of

TOOLS = ("get_weather", "get_time", "now")
TURN = TurnRequest(b"{}")
DIED = EngineError("The gateway's worker died.")
TERMINAL = (b"completed", b"incomplete", b"failed")


def asked(*, background: bool) -> CreateRequest:
    """The request that all streams here answer."""
    return request(tools=functions(TOOLS), background=background)


def opening(*, background: bool) -> list[Input]:
    """What every run begins with."""
    return (
        [Queued(), Begin(TURN), ModelAnswered()] if background else [Begin(TURN), ModelAnswered()]
    )


def frames_of(raw: bytes) -> list[bytes]:
    """The frames of a stream that were logged while it ran: all but its end."""
    frames = [frame + b"\n\n" for frame in raw.split(b"\n\n")[:-1]]
    return [frame for frame in frames if not _ends(frame)]


def _ends(frame: bytes) -> bool:
    kind = frame.partition(b"\n")[0]
    return kind in (b"data: [DONE]", b"event: error") or kind.endswith(TERMINAL)


@cache
def recorded(name: str, *, background: bool) -> list[bytes]:
    """The log of a recorded turn."""
    transcript = transcripts.load(name)
    player = Player(machine(asked(background=background)))
    for received in opening(background=background):
        player.feed(received)
    read(player, ResponsesStream(TurnRules(tools=True)), transcript.frames, cut=transcript.cut)
    return frames_of(player.played.raw)


def redriven(log: list[bytes], *, background: bool) -> Redriven:
    """Read a log back into a machine of the same request."""
    redrive = Redrive(machine(asked(background=background)), queued=background)
    for frame in log:
        redrive.feed(frame)
    return redrive.end()


def carried_on(log: list[bytes], *received: Input, background: bool) -> bytes:
    """The whole stream: what was logged, what was not, and what another worker adds."""
    found = redriven(log, background=background)
    player = Player(found.machine)
    for each in received:
        player.feed(each)
    return b"".join([*log, beyond(found), player.played.raw])


def beyond(found: Redriven) -> bytes:
    """What was made and is not logged."""
    return b"" if found.unlogged is None else found.unlogged.frames


def again(found: Phase) -> list[Input]:
    """What a worker does that takes a run over: the turn once more, to its end."""
    return [
        Begin(TURN) if found is Phase.QUEUED else Resumed(TURN),
        ModelAnswered(),
        ItemStarted("message"),
        TextDelta("once more"),
        TurnEnded(NOW, Usage(1, 0, 2, 0)),
    ]


# -- recorded streams --------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("name", transcripts.names())
def test_a_recording_that_ends_anywhere_is_failed_in_order(name: str, background: bool) -> None:
    """P4: cut at any event, the stream keeps all rules to its `response.failed`."""
    log = recorded(name, background=background)
    for cut in range(len(log) + 1):
        raw = carried_on(log[:cut], Failed(NOW, DIED), background=background)
        response = response_of(check_stream(raw))
        assert response["status"] == "failed"
        assert b"".join(log[:cut]) == raw[: len(b"".join(log[:cut]))]


@pytest.mark.parametrize("name", transcripts.names())
def test_a_recording_that_ends_anywhere_is_run_again_in_one_stream(name: str) -> None:
    """P4, R4, R5: one numbering, each item closed once, and the second run's items behind the first's."""
    log = recorded(name, background=True)
    for cut in range(len(log) + 1):
        phase = redriven(log[:cut], background=True).machine.phase
        raw = carried_on(log[:cut], *again(phase), background=True)
        response = response_of(check_stream(raw, taken_over=True))
        assert response["status"] == "completed"
        assert response["output"][-1]["content"][0]["text"] == "once more"
        assert response["usage"]["output_tokens"] == 2


@pytest.mark.parametrize("name", transcripts.names())
def test_a_redriven_machine_goes_on_as_the_dead_one_would_have(name: str) -> None:
    """P4: the same ids, numbers and bytes for whatever follows."""
    transcript = transcripts.load(name)
    one = Player(machine(asked(background=False)))
    for received in opening(background=False):
        one.feed(received)
    inputs = contents(transcript)
    for cut in range(0, len(inputs) + 1, 7):
        player = Player(machine(asked(background=False)))
        for received in (*opening(background=False), *inputs[:cut]):
            player.feed(received)
        found = redriven(frames_of(player.played.raw), background=False)
        assert found.unlogged is None
        for received in (*inputs[cut:], TurnEnded(NOW, None)):
            assert found.machine.receive(received) == player.machine.receive(received)


def contents(transcript: transcripts.Transcript) -> list[Input]:
    """What a recording says, as the machine is told it."""
    told: list[Input] = []
    upstream = ResponsesStream(TurnRules(tools=True))
    recorder = Player(machine(asked(background=False)))
    receive = recorder.machine.receive

    def record(received: Input) -> Any:
        told.append(received)
        return receive(received)

    recorder.machine.receive = record  # type: ignore[method-assign]
    for received in opening(background=False):
        recorder.feed(received)
    read(recorder, upstream, transcript.frames, cut=transcript.cut)
    return [each for each in told[2:] if type(each).__name__.endswith(("Started", "Delta"))]


# -- any stream --------------------------------------------------------------------------------------

DELTAS: dict[str, list[Callable[[str], Content]]] = {
    "message": [TextDelta, RefusalDelta],
    "reasoning": [ReasoningDelta, SummaryDelta],
    "function_call": [ArgumentsDelta],
}
LOGPROBS = b'[{"token":"a","logprob":-0.50,"bytes":[97],"top_logprobs":[]}]'


@st.composite
def an_item(draw: st.DrawFn) -> list[Input]:
    """An item of any kind, its parts in any order."""
    kind = draw(st.sampled_from(["message", "reasoning", "function_call"]))
    made: list[Input] = [ItemStarted(kind, "now" if kind == "function_call" else "")]  # type: ignore[arg-type]
    for _ in range(draw(st.integers(0, 4))):
        delta = draw(st.sampled_from(DELTAS[kind]))
        text = draw(st.sampled_from(["", " ", "a", 'é\u2028\u0000"', "{}"]))
        with_logprobs = delta is TextDelta and draw(st.booleans())
        made.append(TextDelta(text, LOGPROBS) if with_logprobs else delta(text))
    return made


ITEMS = st.lists(an_item(), max_size=4).map(lambda found: list(itertools.chain(*found)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ITEMS, st.data())
def test_any_log_that_ends_anywhere_is_taken_over_any_number_of_times(
    first: list[Input], data: st.DataObject
) -> None:
    """P4: a second worker's log, its own items behind the first's, is read back like any other."""
    player = Player(machine(asked(background=True)))
    for received in (*opening(background=True), *first):
        player.feed(received)
    log = frames_of(player.played.raw)
    for _ in range(2):
        log = log[: data.draw(st.integers(0, len(log)))]
        found = redriven(log, background=True)
        player = Player(found.machine)
        for received in (*again(found.machine.phase)[:2], *data.draw(ITEMS)):
            player.feed(received)
        log = frames_of(b"".join([*log, beyond(found), player.played.raw]))
    raw = carried_on(log, Failed(NOW, DIED), background=True)
    assert response_of(check_stream(raw, taken_over=True))["status"] == "failed"


def test_what_was_made_before_is_not_sent_to_a_model_again() -> None:
    """M2: shown, but the second run makes it anew; a later turn has it once."""
    player = Player(machine(asked(background=True)))
    for received in (*opening(background=True), ItemStarted("reasoning"), ReasoningDelta("hm")):
        player.feed(received)
    player.feed(ItemStarted("message"))
    player.feed(TextDelta("Hal"))
    found = redriven(frames_of(player.played.raw), background=True)
    other = Player(found.machine)
    for received in again(found.machine.phase):
        other.feed(received)

    assert other.played.saved is not None
    output = other.played.saved.output
    assert [item.type for item in output] == ["reasoning", "message", "message"]
    assert [item.replay is None for item in output] == [True, True, False]


def test_what_the_log_lacks_of_one_step_is_the_next_to_be_logged() -> None:
    """R4: nothing is missing between the log's last event and the next worker's first."""
    log = recorded("0.18.1/text", background=False)
    found = redriven(log[:1], background=False)
    assert found.unlogged == EventBatch(1, 1, log[1])
    assert found.machine.phase is Phase.STREAMING


def test_a_page_may_hold_any_number_of_frames() -> None:
    """The log is read by pages."""
    log = recorded("0.18.1/parallel", background=False)
    redrive = Redrive(machine(asked(background=False)), queued=False)
    redrive.feed(b"".join(log[:5]))
    redrive.feed(b"".join(log[5:]))
    assert redrive.end().machine.receive(TurnEnded(NOW, None)) != []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"delta":"', b'"delta" :"'),
        (b"response.output_text.delta", b"response.output_text.more"),
        (b'"output_index":0', b'"output_index":1'),
        (b'"type":"message"', b'"type":"painting"'),
        (b'{"type":"response.output_text.delta"', b'"type":"response.output_text.delta"'),
        (b"event: response.output_item.added", b"event: response.output_item.addxx"),
    ],
)
def test_a_log_that_this_release_would_not_write_is_refused(old: bytes, new: bytes) -> None:
    """P4: it fails clearly instead of continuing a stream wrongly."""
    log = [frame.replace(old, new) for frame in recorded("0.18.1/text", background=False)]
    with pytest.raises(NotRedrivable, match="log"):
        redriven(log, background=False)


def test_a_log_of_another_response_is_refused() -> None:
    """P4: the ids are made from the response's own."""
    log = [
        frame.replace(b"0f" * 16, b"0e" * 16) for frame in recorded("0.18.1/text", background=False)
    ]
    with pytest.raises(NotRedrivable, match="this release writes"):
        redriven(log, background=False)


def test_a_machine_holds_after_redriving_what_it_held_before() -> None:
    """X5: the bound counts the whole response."""
    player = Player(machine(asked(background=False)))
    for received in (*opening(background=False), ItemStarted("message"), TextDelta("a" * 100)):
        player.feed(received)
    found: ResponseMachine = redriven(frames_of(player.played.raw), background=False).machine
    assert found.held == player.machine.held
    [effect] = found.receive(TextDelta("b"))
    assert isinstance(effect, Send)
