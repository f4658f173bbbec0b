"""Inline mode through real Envoy: the request itself is the first turn of the model."""

from __future__ import annotations

import pytest

from tests.support.replies import say, text
from tests.support.stack import Stack
from tests.support.wire import Wire

INLINE = pytest.mark.parametrize("way", ["inline"], indirect=True)
pytestmark = INLINE


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_request_is_the_models_turn(stack: Stack, wire: Wire, stream: bool) -> None:
    """E7: x."""
    model = stack.plays(say(text("Hel", "lo")))
    seen = await wire.create(model=model, stream=stream)
    print(seen.status, seen.headers, bytes(seen.raw).decode())
    print((await stack.asks(model)).headers)
    for line in stack.said[-30:]: print(line)
    assert 0
