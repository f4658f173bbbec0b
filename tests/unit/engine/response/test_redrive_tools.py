"""Logs with owned calls and items of the model server's, read back after any number of deaths (P4)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api.response_object import Usage
from engine.errors import EngineError
from engine.ports import ToolDefinition, ToolOutcome
from engine.response.agenda import Agenda, Listing
from engine.response.effects import CallModel, RunTools
from engine.response.inputs import (
    ArgumentsDelta,
    Begin,
    Failed,
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
    UpstreamEnded,
    UpstreamEvent,
    UpstreamStarted,
)
from engine.response.machine import ResponseMachine
from engine.response.phase import Phase
from engine.response.redrive import Redrive, Redriven
from engine.upstream.dialect import ResponsesDialect
from tests.support.fake_tools import server
from tests.support.playback import NOW, Player, machine, request
from tests.support.stream_rules import check_stream, response_of
from tests.unit.engine.response.test_redrive import beyond

REQUEST = request(tools=[server("s")], background=True)
AGENDA = Agenda(request=REQUEST, encoder=ResponsesDialect(), replay=[], headers={}, most_turns=100)
LISTED = ToolsListed((Listing("s", [ToolDefinition(name="t", parameters=b"{}")]),))
DIED = Failed(NOW, EngineError("The gateway's worker died."))
USAGE = Usage(input_tokens=10, cached_tokens=4, output_tokens=5, reasoning_tokens=2)
CALL: list[Input] = [ItemStarted("function_call", "t"), ArgumentsDelta('{"a":1}')]
TEXT: list[Input] = [ItemStarted("message"), TextDelta("hm"), TextDelta("!")]
OUTCOME = ToolOutcome(text="found")


class Tools(Player):
    """Plays a machine with tools; what it is asked for is kept."""

    def __init__(self, of: ResponseMachine) -> None:
        super().__init__(of)
        self.round: RunTools | None = None
        self.asked: list[CallModel] = []

    def feed(self, received: Input) -> None:
        effects = self.machine.receive(received)
        for effect in effects:
            if isinstance(effect, RunTools):
                self.round = effect
            elif isinstance(effect, CallModel):
                self.asked.append(effect)
            elif type(effect).__name__ != "ListTools":
                self._carry_out(effect)


def fresh() -> ResponseMachine:
    return machine(REQUEST)


def frames_of(raw: bytes) -> list[bytes]:
    """The frames of a stream that has not ended, by the steps in which owned items are made."""
    steps: list[bytes] = []
    joined = b""
    for frame in raw.split(b"\n\n")[:-1]:
        joined += frame + b"\n\n"
        if not _goes_on(frame):
            steps.append(joined)
            joined = b""
    return steps


def _goes_on(frame: bytes) -> bool:
    kind = frame[frame.index(b"event: ") :].partition(b"\n")[0].removeprefix(b"event: response.")
    if b'{"id":"mcpl_' in frame:
        return kind == b"output_item.added"
    calls = (b"mcp_call.completed", b"mcp_call.failed", b"file_search_call.completed")
    return kind in calls or kind.startswith(b"mcp_list_tools")


def redriven(log: list[bytes]) -> Redriven:
    redrive = Redrive(fresh(), queued=True, turn=AGENDA)
    for frame in log:
        redrive.feed(frame)
    return redrive.end()


def upstream(key: str, *, ended: bool = True) -> list[Input]:
    """What passes of one item of the model server's."""
    tail = b',"type":"web_search_call","status":"%b"}'
    inputs: list[Input] = [
        UpstreamStarted(key, "web_search_call", tail % b"in_progress"),
        UpstreamEvent(key, "response.web_search_call.searching", b',"n":1'),
    ]
    return [*inputs, UpstreamEnded(key, tail % b"completed")] if ended else inputs


PARTS = st.lists(st.sampled_from(["call", "text", "search", "open search"]), max_size=4)


def a_turn(parts: list[str], number: int) -> Iterator[Input]:
    """The content of one turn, one call at its end so that there is a round."""
    for place, part in enumerate(parts):
        key = f"{number}.{place}"
        if part == "call":
            yield from CALL
        elif part == "text":
            yield from TEXT
        else:
            yield from upstream(key, ended=part == "search")
    yield from CALL


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_any_log_with_tools_is_taken_over_any_number_of_times(data: st.DataObject) -> None:
    """P4, R4, R5: also in the middle of a call, of a round, of a server's own search; again and again."""
    player = Tools(fresh())
    begun: list[Input] = [Queued(), Begin(AGENDA), LISTED, ModelAnswered()]
    for received in begun:
        player.feed(received)
    log: list[bytes] = []
    made = b""
    for number in range(3):
        for turn in range(data.draw(st.integers(0, 2))):
            for received in a_turn(data.draw(PARTS), number * 10 + turn):
                player.feed(received)
            player.feed(TurnEnded(NOW, USAGE))
            assert player.round is not None
            calls = player.round.calls
            answered = data.draw(st.integers(0, len(calls)))
            for called in calls[:answered]:
                player.feed(ToolEnded(called.item_id, OUTCOME))
            if answered < len(calls):
                break
            player.feed(RoundEnded(NOW))
            player.feed(ModelAnswered())
        log = [*log, *frames_of(made + player.played.raw)]
        log = log[: data.draw(st.integers(0, len(log)))]
        found = redriven(log)
        player, made = Tools(found.machine), beyond(found)
        resume(player)
    player.feed(DIED)
    raw = b"".join([*log, made, player.played.raw])
    assert response_of(check_stream(raw, taken_over=True))["status"] == "failed"


def resume(player: Tools) -> None:
    """Do what a worker does that takes a run over."""
    fresh = player.machine.phase is Phase.QUEUED
    player.feed(Begin(AGENDA) if fresh else Resumed(AGENDA))
    if player.machine.phase is Phase.LISTING:
        player.feed(LISTED)
    player.feed(ModelAnswered())


def test_a_first_turn_that_is_asked_for_again_is_forced_again() -> None:
    """T4, M9: what a dead worker's first turn had to call, its successor's has to."""
    choice = {"type": "mcp", "server_label": "s"}
    forcing = msgspec.structs.replace(
        AGENDA, request=request(tools=[server("s")], tool_choice=choice)
    )
    player = Tools(fresh())
    begun: list[Input] = [Queued(), Begin(forcing), LISTED, ModelAnswered(), *TEXT]
    for received in begun:
        player.feed(received)
    player.feed(Resumed(forcing))
    assert player.asked[0] == player.asked[1]
    assert b'"tool_choice"' in player.asked[1].turn.body


def test_the_second_successor_asks_what_the_first_asked() -> None:
    """P4, M9, R10: what was given up when it was taken over is not shown to the model afterwards either."""
    player = Tools(fresh())
    for received in (Queued(), Begin(AGENDA), LISTED, ModelAnswered(), *TEXT, *CALL, *CALL):
        player.feed(received)
    player.feed(TurnEnded(NOW, USAGE))
    assert player.round is not None
    player.feed(ToolEnded(player.round.calls[0].item_id, OUTCOME))
    log = frames_of(player.played.raw)

    first = Tools(redriven(log).machine)
    resume(first)
    # What the first turn took is in the log, as far as a call of it has ended.
    assert first.machine.usage == USAGE
    second = Tools(redriven([*log, *frames_of(first.played.raw)]).machine)
    resume(second)

    assert second.asked == first.asked
    assert second.machine.usage == USAGE
    assert msgspec.json.decode(second.asked[0].turn.body)["input"][-1]["output"] == "found"
