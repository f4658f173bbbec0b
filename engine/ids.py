"""Ids of API objects: minted here, never taken from a backend (their ids repeat and change in mid-stream).

Pure: randomness is passed in. Ids of the items of one response are derived from the response's own id,
so a run needs no further randomness and a replayed run mints the same ids.
"""

from __future__ import annotations

RANDOM_BYTES = 16


def response_id(random_bytes: bytes) -> str:
    """Return `resp_` + the hex of `random_bytes` (use RANDOM_BYTES of them: an id is not guessable)."""
    return f"resp_{random_bytes.hex()}"


def conversation_id(random_bytes: bytes) -> str:
    """Return `conv_` + the hex of `random_bytes`."""
    return f"conv_{random_bytes.hex()}"


def connector_id(random_bytes: bytes) -> str:
    """Return `conn_` + the hex of `random_bytes` (RANDOM_BYTES of them)."""
    return f"conn_{random_bytes.hex()}"


class ItemIds:
    """Mints the item ids and call ids of one response, or of items that are added, in order."""

    def __init__(self, of_response: str, *, minted: int = 0) -> None:
        self._stem = of_response.removeprefix("resp_")
        self.minted = minted
        """How many there are."""

    def mint(self, prefix: str) -> str:
        """Return the next id, `<prefix>_<stem of the response id><number>`."""
        number = self.minted
        self.minted += 1
        return f"{prefix}_{self._stem}{number:04x}"
