"""The request headers that the engine reads: they are checked like fields, `param` being their name."""

from __future__ import annotations

from typing import Literal

from engine.api import checks
from engine.errors import InvalidRequest

IDEMPOTENCY_KEY = "idempotency-key"
ON_DISCONNECT = "holdfast-on-disconnect"

OnDisconnect = Literal["continue", "cancel"]
"""What a client's leaving does to its stored response (rule P3)."""

_POLICIES: tuple[OnDisconnect, ...] = ("continue", "cancel")
# What the store keeps as a name.
_KEY = checks.matching(r"[\x21-\x7e]{1,255}")


def read_on_disconnect(
    value: str | None, default: OnDisconnect, *, chosen: bool = True
) -> OnDisconnect:
    """Return the policy that a request asks for; raises InvalidRequest.

    Where it is not to be `chosen` by requests, they may only ask for the default.
    """
    if value is None:
        return default
    allowed = _POLICIES if chosen else (default,)
    for policy in allowed:
        if value == policy:
            return policy
    expected = " or ".join(f"'{policy}'" for policy in allowed)
    raise checks.wrong_value(value, ON_DISCONNECT, expected)


def read_idempotency_key(value: str | None, *, store: bool) -> str | None:
    """Return the key of a request; raises InvalidRequest, also where nothing will be stored under it."""
    if value is None:
        return None
    if not store:
        raise InvalidRequest(
            "An Idempotency-Key needs a response that is stored.",
            param="store",
            code="invalid_value",
        )
    return str(_KEY(value, IDEMPOTENCY_KEY))
