"""What happens to the bytes of a stream on their way: line ends, splits, joins, noise. Pure."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.support.transcripts import event_of

Event = dict[str, Any]
Frames = Iterable[bytes]
# What an edit makes of one event: another, several, or none.
Edit = Callable[[Event], Event | list[Event] | None]


def sse(event: Event) -> bytes:
    """One frame, with an `event:` line where the event has a type."""
    data = f"data: {json.dumps(event, separators=(',', ':'), ensure_ascii=False)}\n\n"
    return (f"event: {event['type']}\n{data}" if "type" in event else data).encode()


def numbered(raw: bytes) -> list[tuple[int, bytes]]:
    """Return the events of a stream of ours, each as its number and its frame."""
    frames = [frame + b"\n\n" for frame in raw.split(b"\n\n") if b"event: " in frame[:200]]
    return [(event_of(frame)["sequence_number"], frame) for frame in frames]


def edited(frames: Frames, edit: Edit) -> Iterator[bytes]:
    for frame in frames:
        if b"data: {" not in frame:
            yield frame
            continue
        made = edit(event_of(frame))
        if made is not None:
            yield from map(sse, made if isinstance(made, list) else [made])


def crlf(frames: Frames) -> Iterator[bytes]:
    return (frame.replace(b"\n", b"\r\n") for frame in frames)


def mixed_line_ends(frames: Frames) -> Iterator[bytes]:
    """LF and CRLF in turn, line by line."""
    ends = itertools.cycle([b"\n", b"\r\n"])
    for frame in frames:
        yield b"".join(line + next(ends) for line in frame.split(b"\n")[:-1])


def without_event_lines(frames: Frames) -> Iterator[bytes]:
    for frame in frames:
        lines = frame.split(b"\n")
        yield b"\n".join(line for line in lines if not line.startswith(b"event:"))


def without_space(frames: Frames) -> Iterator[bytes]:
    """`data:{…}`: the space behind the colon is optional in SSE."""
    return (frame.replace(b"data: ", b"data:", 1) for frame in frames)


def multi_line_data(frames: Frames) -> Iterator[bytes]:
    """Each event's JSON spread over several `data:` lines."""
    for frame in frames:
        if b"data: {" not in frame:
            yield frame
            continue
        event = event_of(frame)
        spread = json.dumps(event, indent=1, ensure_ascii=False).replace("\n", "\ndata: ")
        yield f"event: {event.get('type', 'message')}\ndata: {spread}\n\n".encode()


def commented(frames: Frames) -> Iterator[bytes]:
    for number, frame in enumerate(frames):
        yield b": comment %d\n\n" % number
        yield frame


def split_every(frames: Frames, size: int) -> Iterator[bytes]:
    """Writes of `size` bytes, whatever they cut through."""
    kept = b""
    for frame in frames:
        kept += frame
        whole = len(kept) - len(kept) % size
        for at in range(0, whole, size):
            yield kept[at : at + size]
        kept = kept[whole:]
    if kept:
        yield kept


def split_at(frames: Frames, *offsets: int) -> Iterator[bytes]:
    """The whole stream in writes that end at these byte offsets."""
    body = b"".join(frames)
    for start, end in itertools.pairwise([0, *sorted(offsets), len(body)]):
        if start < end:
            yield body[start:end]


def joined(frames: Frames, count: int | None) -> Iterator[bytes]:
    """So many events in one write; None: all of them."""
    if count is None:
        yield b"".join(frames)
        return
    todo = iter(frames)
    while group := b"".join(itertools.islice(todo, count)):
        yield group


def first_bytes(frames: Frames, count: int) -> Iterator[bytes]:
    for frame in frames:
        if count <= 0:
            return
        yield frame[:count]
        count -= len(frame)


def gzipped(frames: Frames) -> Iterator[bytes]:
    """One gzip member, flushed behind each write, so that the client can read along."""
    packer = zlib.compressobj(wbits=31)
    for frame in frames:
        yield packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that are neither UTF-8 nor SSE, the same on every run."""
    return random.Random(seed).randbytes(size)
