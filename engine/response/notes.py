"""What a log tells a later worker beside its events: comments, which no client looks at (rule R10).

A comment is one of the first lines of an event's frame, so that a frame still has one number. What a client
is not to see, such as results that it has not asked for, is in *held* notes: those stay in the log.
"""

from __future__ import annotations

import re

import msgspec

from engine.api.json import encode
from engine.api.response_object import Usage

_EVENT = rb'event: [^\n]*\ndata: \{"type":"[^"]*","sequence_number":(\d+)'
_USAGE = re.compile(rb": usage (\d+) (\d+) (\d+) (\d+)\n(?:: [^\n]*\n)*" + _EVENT)
_HELD = re.compile(rb": held ([^\n]*)\n" + _EVENT)
_HELD_LINE = re.compile(rb"^: held [^\n]*\n", re.MULTILINE)
_MARK = b": held "
NO_RESULTS = msgspec.Raw(b"null")


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a held note has: of a citation its mark, of a call of the gateway's its arguments, or what the
    model was told of it, with results that its item does not show.
    """

    mark: str = ""
    arguments: str | None = None
    text: str = ""
    results: msgspec.Raw = NO_RESULTS


def usage_note(usage: Usage) -> bytes:
    """Return the comment that tells what a turn took."""
    return b": usage %d %d %d %d\n" % (
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


def held_note(held: Held) -> bytes:
    """Return the comment that tells this; the last one before its event."""
    return b"%b%b\n" % (_MARK, encode(held))


def has_held(frames: bytes) -> bool:
    """True if there may be held notes among the frames."""
    return _MARK in frames


def without_held(frames: bytes) -> bytes:
    """Return frames as a client sees them."""
    return _HELD_LINE.sub(b"", frames) if _MARK in frames else frames


def read_usage(frames: bytes) -> dict[int, Usage]:
    """Return what such comments tell, by the number of the event that carries them."""
    return {int(number): Usage(*map(int, counts)) for *counts, number in _USAGE.findall(frames)}


def read_held(frames: bytes) -> dict[int, Held]:
    """Return what held notes tell, by the number of the event that carries them."""
    return {int(number): _decode(note) for note, number in _HELD.findall(frames)}


_decode = msgspec.json.Decoder(Held).decode
