"""What worker and child say to each other.

A document is one message on the control socket: a `Job` in MessagePack, with two descriptors, the document's
and that of a socket of its own. On that socket come frames: a letter, the length of the rest in four bytes,
the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from extproc.extraction.bounds import Bounds, Code, Unreadable

# A control message is whole or not at all (SOCK_SEQPACKET), and far smaller.
JOB_BYTES = 16 << 10
HEAD = struct.Struct("!cI")
_STATUS = struct.Struct("!i")

STARTED = b"S"
"""The document is about to be read: its time begins. With `UNFILTERED` behind it where that is so."""
UNFILTERED = b"U"
"""The kernel cannot refuse calls to the process that reads."""
TEXT = b"T"
"""A piece of its text."""
CHUNK = b"C"
"""One chunk."""
REFUSED = b"R"
"""It cannot be read: `Refusal`."""
DONE = b"D"
"""There is nothing more."""
ENDED = b"E"
"""The process that read it has ended: its exit status, or less than zero, the signal. From the template."""

FRAME_BYTES = 1 << 20
"""The most that a frame may hold; a chunk is far smaller, a text comes in pieces."""


class Cut(msgspec.Struct, frozen=True):
    """How a text is cut, in tokens."""

    size: int
    overlap: int


class Job(msgspec.Struct, frozen=True):
    """What to do with a document: read it, and cut its text where `cut` says how."""

    filename: str
    bounds: Bounds
    cut: Cut | None


class Refusal(msgspec.Struct, frozen=True):
    """Why a document cannot be read."""

    message: str
    code: Code


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return HEAD.pack(kind, len(payload)) + payload


def text_frames(text: str) -> Iterator[bytes]:
    """Yield a text in frames; characters may be cut, the pieces belong together."""
    data = text.encode()
    for start in range(0, len(data), FRAME_BYTES):
        yield frame(TEXT, data[start : start + FRAME_BYTES])


def refusal_frame(why: Unreadable) -> bytes:
    """Return the frame that refuses a document."""
    return frame(REFUSED, msgspec.msgpack.encode(Refusal(why.message, why.code)))


def refusal_of(payload: bytes) -> Refusal:
    """Return what a refusal's frame says; raises msgspec.MsgspecError."""
    return msgspec.msgpack.decode(payload, type=Refusal)


def ended_frame(status: int) -> bytes:
    """Return the frame that tells how a process ended."""
    return frame(ENDED, _STATUS.pack(status))


def status_of(payload: bytes) -> int:
    """Return what the frame `ENDED` says."""
    return int(_STATUS.unpack(payload)[0])
