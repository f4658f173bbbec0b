"""Sealing, as a port: secrets that are stored, or kept by the client, and that nobody but us can read.

What is sealed is opaque and tamper-evident, and opens only for the tenant and the purpose that it was sealed
for (rule X4).
"""

from __future__ import annotations

from typing import Protocol


class SealBroken(Exception):
    """Sealed text that does not open: changed, cut, of another tenant, or for another purpose.

    Which of these it was cannot be told, and the message holds nothing of the text.
    """


class UnknownSealingKey(SealBroken):
    """It was sealed with a key that is not here (any more)."""


class Sealing(Protocol):
    """Seals with the newest key; opens what any of the keys has sealed."""

    def seal(self, tenant: str, purpose: str, plain: bytes) -> str:
        """Return `plain` sealed: ASCII letters, digits, `.`, `_` and `-`; another text each time.

        `purpose` says what it is and where it belongs, such as the id of the object that holds it: what is
        sealed for one is nothing to another. Raises SealingUnavailable where no key is configured.
        """
        ...

    def unseal(self, tenant: str, purpose: str, sealed: str) -> bytes:
        """Return what was sealed; raises SealBroken, UnknownSealingKey, SealingUnavailable."""
        ...
