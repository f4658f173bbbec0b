"""What a client keeps for us and cannot read or forge: `encrypted_content` (rule X4).

It is sealed for its tenant: what another one sends is refused like what nobody has sealed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.errors import InvalidRequest, SealingUnavailable
from engine.ports import SealBroken, Sealing

Unseal = Callable[[str, str, str], str]
"""Returns the text of `encrypted_content`, given with its path and its purpose; raises InvalidRequest."""

REASONING = "reasoning"


class Seals(msgspec.Struct, frozen=True):
    """Seals of one tenant."""

    sealing: Sealing
    tenant: str

    def require(self, param: str) -> None:
        """Raise SealingUnavailable with `param` if nothing can be sealed."""
        try:
            self.seal("")
        except SealingUnavailable as error:
            raise SealingUnavailable(error.message, param=param) from error

    def seal(self, text: str, purpose: str = REASONING) -> str:
        """Return the `encrypted_content` of an item with this text, for an item of one type only."""
        return self.sealing.seal(self.tenant, purpose, text.encode("utf-8", "surrogatepass"))

    def unseal(self, sealed: str, param: str, purpose: str = REASONING) -> str:
        """Return the text of an item; raises InvalidRequest (`param`) for what is not ours."""
        try:
            plain = self.sealing.unseal(self.tenant, purpose, sealed)
        except SealingUnavailable as error:
            raise SealingUnavailable(error.message, param=param) from error
        except SealBroken as error:
            raise InvalidRequest(
                "The encrypted content could not be verified: it was not made by this gateway for "
                "this tenant, or it was changed.",
                param=param,
                code="invalid_encrypted_content",
            ) from error
        return plain.decode("utf-8", "surrogatepass")
