"""What a summary takes the place of (rules M4, M9)."""

from __future__ import annotations

import pytest

from engine.context.summaries import Divided, divided

SYSTEM = b'{"role":"system","content":"s"}'
DEVELOPER = b'{"role":"developer","content":"d"}'
USER = b'{"role":"user","content":"u"}'
SAID = b'{"role":"assistant","content":"a"}'
THOUGHT = b'{"type":"reasoning","id":"r","summary":[]}'
CALL, OTHER = (
    b'{"type":"function_call","call_id":"%b","name":"f","arguments":"{}"}' % n for n in (b"1", b"2")
)
OUTPUT, OTHERS = (
    b'{"type":"function_call_output","call_id":"%b","output":"o"}' % n for n in (b"1", b"2")
)
OWNED = b",".join((CALL, OUTPUT))
COMPACTED = b",".join((SYSTEM, USER, USER))


@pytest.mark.parametrize(
    ("replay", "leading", "covered"),
    [
        ([], 0, 0),
        ([USER], 0, 0),
        ([SYSTEM, DEVELOPER, USER], 2, 0),
        ([USER, SAID, USER], 0, 2),
        ([USER, SAID, USER, DEVELOPER, USER], 0, 2),
        ([SYSTEM, USER, SAID, SYSTEM, USER], 1, 2),
        ([USER, SAID], 0, 2),
        # Outputs stay with their calls, and calls with what they were made for.
        ([USER, SAID, USER, CALL, OUTPUT], 0, 2),
        ([USER, SAID, USER, THOUGHT, CALL, OTHER, OUTPUT, OTHERS], 0, 2),
        ([USER, THOUGHT, CALL, OUTPUT], 0, 0),
        ([USER, CALL, OUTPUT, OTHER, OTHERS], 0, 3),
        ([USER, THOUGHT, SAID, CALL, OUTPUT, USER], 0, 3),
        ([USER, CALL, OUTPUT, SAID, OTHER, OTHERS], 0, 4),
        # Calls of the gateway's own tools bring their outputs.
        ([USER, OWNED, SAID, USER], 0, 3),
        ([USER, OWNED, USER], 0, 2),
        # An output whose call is nowhere: nothing can be cut.
        ([USER, SAID, OUTPUT], 0, 0),
        # What was compacted before is new as long as nobody has answered.
        ([COMPACTED, USER], 0, 0),
        ([COMPACTED, SAID, USER], 0, 2),
    ],
)
def test_what_is_new_stays(replay: list[bytes], leading: int, covered: int) -> None:
    """And instructions at the beginning."""
    until = leading + covered
    found = divided(replay)
    assert found == Divided(replay[:leading], replay[leading:until], replay[until:])
    assert found.whole == replay
