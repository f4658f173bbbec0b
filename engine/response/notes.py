"""What a log tells a later worker beside its events: comments, which no client looks at (rule R10).

A comment is the first line of an event's frame, so that a frame still has one number.
"""

from __future__ import annotations

import re

from engine.api.response_object import Usage

_USAGE = re.compile(
    rb": usage (\d+) (\d+) (\d+) (\d+)\n"
    rb'event: [^\n]*\ndata: \{"type":"[^"]*","sequence_number":(\d+)'
)


def usage_note(usage: Usage) -> bytes:
    """Return the comment that tells what a turn took."""
    return b": usage %d %d %d %d\n" % (
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


def read_usage(frames: bytes) -> dict[int, Usage]:
    """Return what such comments tell, by the number of the event that carries them."""
    return {int(number): Usage(*map(int, counts)) for *counts, number in _USAGE.findall(frames)}
