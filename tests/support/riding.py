"""How a request travels on, for exchanges in the process."""

from __future__ import annotations

from engine.ports import ModelClient
from extproc.held_request import Riding


def riding(onward: ModelClient, silence: float = 5.0) -> Riding:
    """Return it, with `onward` for the later turns and one header for all of them."""
    return Riding({"accept-encoding": "identity"}, silence, onward=onward)
