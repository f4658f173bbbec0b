"""The recordings and what older releases refuse."""

from __future__ import annotations

import pytest

from extproc.demo.rejection import Rejected
from tests.support import transcripts
from tests.support.input_shapes import SHAPES, Shape
from tests.support.releases import check_release, release_of


def test_there_are_seven_releases_of_eleven_scenarios() -> None:
    """Nothing was lost on the way into the repository."""
    names = transcripts.names()
    assert len(names) == 77
    assert len({name.split("/")[0] for name in names}) == 7


@pytest.mark.parametrize("name", transcripts.names())
def test_a_recording_parses_and_only_errors_are_cut(name: str) -> None:
    """Every frame holds one JSON event; the cut stands where the engine failed."""
    transcript = transcripts.load(name)
    assert transcript.events()[0]["type"] == "response.created"
    assert transcript.cut == name.endswith("/error")


def test_a_replay_carries_the_request_and_nothing_else_changes() -> None:
    """Model, id and tools are the request's; the deltas stay byte for byte."""
    transcript = transcripts.load("0.18.1/tool")
    tools = [{"type": "function", "name": "f"}]
    body = {"model": "vllm-0.18.1/tool", "request_id": "resp_x", "tools": tools}
    replayed = transcripts.replayed(transcript, body)
    response = transcripts.event_of(replayed[-1])["response"]
    assert (response["model"], response["id"]) == ("vllm-0.18.1/tool", "resp_x")
    assert response["tools"] == tools
    assert replayed[2:-1] == list(transcript.frames[2:-1])


def test_a_replay_of_the_recorded_request_is_the_recording() -> None:
    """Substituting nothing changes no byte."""
    transcript = transcripts.load("0.32.0/text")
    assert transcripts.replayed(transcript, {}) == list(transcript.frames)


def test_the_whole_body_is_the_terminal_object() -> None:
    """And a broken recording has none."""
    assert transcripts.whole(transcripts.load("0.32.0/text"), {})["status"] == "completed"
    with pytest.raises(ValueError, match="breaks off"):
        transcripts.whole(transcripts.load("0.32.0/error"), {})


@pytest.mark.parametrize("release", ["0.16.0", "0.21.0", "0.28.0", "0.32.0"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_release_refuses_the_items_that_it_was_measured_to_refuse(
    shape: Shape, release: str
) -> None:
    """64 shapes times four releases."""
    status = 200
    try:
        check_release({"input": [shape.item]}, release_of(release))
    except Rejected as refusal:
        status = refusal.status
    assert status == shape.status_in(release)
