"""The recorded streams of seven vLLM releases, replayed as if for the request at hand. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "transcripts" / "vllm"
# Stands in a recording where the server dropped the connection without ending the body.
CUT = "!! CUT"


@dataclass(frozen=True, slots=True)
class Transcript:
    """One recording: its frames as sent, and whether the connection broke behind them."""

    frames: tuple[bytes, ...]
    cut: bool

    def events(self) -> list[dict[str, Any]]:
        """The recorded events, parsed."""
        return [event_of(frame) for frame in self.frames]


def names() -> list[str]:
    """Every recording as `<release>/<scenario>`."""
    return sorted(path.stem.replace("_", "/", 1) for path in FOLDER.glob("*.sse"))


@cache
def load(name: str) -> Transcript:
    """The recording of that name, for example `0.18.1/parallel`."""
    text = (FOLDER / f"{name.replace('/', '_', 1)}.sse").read_text(encoding="utf-8")
    blocks = [block for block in text.split("\n\n") if block.strip()]
    frames = tuple(f"{block}\n\n".encode() for block in blocks if block.strip() != CUT)
    return Transcript(frames, cut=any(block.strip() == CUT for block in blocks))


def replayed(transcript: Transcript, body: Mapping[str, Any]) -> list[bytes]:
    """The frames with the response's id, model and tools as that request would have had them."""
    return [_replayed_frame(frame, body) for frame in transcript.frames]


def whole(transcript: Transcript, body: Mapping[str, Any]) -> dict[str, Any]:
    """The non-streaming body: the last response object of the recording."""
    last = event_of(replayed(transcript, body)[-1])
    if "response" not in last:
        raise ValueError("this recording breaks off before its response object")
    response: dict[str, Any] = last["response"]
    return response


def event_of(frame: bytes) -> dict[str, Any]:
    """The JSON of one SSE frame; its `data:` may come in several lines."""
    lines = frame.decode().splitlines()
    data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
    event: dict[str, Any] = json.loads("\n".join(data))
    return event


def _replayed_frame(frame: bytes, body: Mapping[str, Any]) -> bytes:
    # Only the lifecycle events carry anything of the request; all others stay byte for byte.
    if b'data: {"response":' not in frame:
        return frame
    event = event_of(frame)
    response = event["response"]
    response["model"] = body.get("model", response["model"])
    response["id"] = body.get("request_id") or response["id"]
    if "tools" in body:
        response["tools"] = body["tools"]
    data = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    return f"event: {event['type']}\ndata: {data}\n\n".encode()
