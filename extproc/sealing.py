"""Sealing with AES-256-GCM (rule X4).

The text is `hf1.<key id>.<random><ciphertext>`, the last part in base64url without padding. Tenant and
purpose are the associated data: not in the text, and without them it does not open. The key id is a digest of
the key, so that keys have no names that could be given twice.

Each text has a key of its own, derived from the first half of its 24 random bytes; the second half is the
nonce. 96 bits alone could repeat after some billions of texts under one key, which would break GCM.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.errors import SealingUnavailable
from engine.ports.sealing import SealBroken, UnknownSealingKey

KEY_BYTES = 32
_FORM = "hf1"
_HALF = 12
_TAG = 16


def parse_key(text: str) -> bytes:
    """Return the key that base64 text holds; raises ValueError, which does not repeat it."""
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key is {KEY_BYTES} random bytes in base64 (openssl rand -base64 32)")
    return key


class AesSealing:
    """`engine.ports.sealing.Sealing` with some keys, of which the first seals and all open."""

    def __init__(
        self, keys: Sequence[bytes], randomness: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._keys = {_id_of(key): key for key in keys}
        self._newest = _id_of(keys[0])
        self._randomness = randomness

    def seal(self, tenant: str, purpose: str, plain: bytes) -> str:
        """Return `plain` sealed, opaque and bound to tenant and purpose."""
        random = self._randomness(2 * _HALF)
        cipher, nonce = _cipher(self._keys[self._newest], random)
        ciphertext = cipher.encrypt(nonce, plain, _bound_to(tenant, purpose))
        body = urlsafe_b64encode(random + ciphertext).rstrip(b"=").decode()
        return f"{_FORM}.{self._newest}.{body}"

    def unseal(self, tenant: str, purpose: str, sealed: str) -> bytes:
        """Return what was sealed; raises SealBroken, UnknownSealingKey."""
        key_id, body = _parts(sealed)
        if key_id not in self._keys:
            raise UnknownSealingKey("The text was sealed with a key that is not configured.")
        cipher, nonce = _cipher(self._keys[key_id], body[: 2 * _HALF])
        try:
            return cipher.decrypt(nonce, body[2 * _HALF :], _bound_to(tenant, purpose))
        except InvalidTag:
            raise SealBroken("The sealed text does not open.") from None


class NoSealing:
    """No key is configured: nothing can be sealed, and the error says how to change that."""

    def seal(self, tenant: str, purpose: str, plain: bytes) -> str:
        """Refuse; raises SealingUnavailable."""
        raise _unavailable()

    def unseal(self, tenant: str, purpose: str, sealed: str) -> bytes:
        """Refuse; raises SealingUnavailable."""
        raise _unavailable()


def _unavailable() -> SealingUnavailable:
    return SealingUnavailable(
        "The gateway has no key to seal secrets with, so it keeps none: its operator has to set "
        "HOLDFAST_SEALING__KEYS or HOLDFAST_SEALING__KEY_FILES."
    )


def _id_of(key: bytes) -> str:
    return hmac.new(key, b"holdfast sealing key", hashlib.sha256).hexdigest()[:16]


def _cipher(key: bytes, random: bytes) -> tuple[AESGCM, bytes]:
    own = hmac.new(key, b"holdfast sealed text" + random[:_HALF], hashlib.sha256).digest()
    return AESGCM(own), random[_HALF:]


def _bound_to(tenant: str, purpose: str) -> bytes:
    """Return both in one, in such a way that no other pair gives the same."""
    first = tenant.encode("utf-8", "surrogatepass")
    return len(first).to_bytes(4) + first + purpose.encode("utf-8", "surrogatepass")


def _parts(sealed: str) -> tuple[str, bytes]:
    form, _, rest = sealed.partition(".")
    key_id, _, text = rest.partition(".")
    try:
        body = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        # What decodes may have been spelled otherwise; there is one spelling only.
        whole = urlsafe_b64encode(body).rstrip(b"=").decode() == text
    except (ValueError, UnicodeEncodeError):
        body, whole = b"", False
    if form != _FORM or not whole or len(body) < 2 * _HALF + _TAG:
        raise SealBroken("The text is not sealed by this gateway.")
    return key_id, body
