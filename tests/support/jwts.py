"""Tokens as an identity provider makes them, and as somebody forges them.

issuer = Issuer()
issuer.keys                     the JWKS, for Envoy
issuer.token("acme")            a token of that tenant
issuer.token("acme", aud="x")   with a claim replaced, or left out by None
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "holdfast"
LIFETIME = 24 * 3600
KEY_ID = "first"


class Issuer:
    """One RSA key and the tokens that it signs, RS256."""

    def __init__(self, name: str = "https://issuer.test") -> None:
        self.name = name
        self._private = generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def keys(self) -> str:
        """The public key, as a JWKS document."""
        return json.dumps({"keys": [self._public()]})

    def token(self, tenant: str | None, **claims: Any) -> str:
        """Return a token of a tenant's, valid for a day; `claims` replace, None leaves out."""
        return jwt.encode(
            self._claims(tenant, claims), self._private, "RS256", headers={"kid": KEY_ID}
        )

    def unsigned(self, tenant: str) -> str:
        """Return a token with the algorithm `none`, as libraries once took them."""
        return jwt.encode(self._claims(tenant, {}), "", "none", headers={"kid": KEY_ID})

    def signed_with_the_public_key(self, tenant: str) -> str:
        """Return a token whose HMAC secret is the public key, which a forger has."""
        head = {"alg": "HS256", "typ": "JWT", "kid": KEY_ID}
        signed = ".".join(_part(json.dumps(part)) for part in (head, self._claims(tenant, {})))
        mac = jwt.get_algorithm_by_name("HS256")
        secret = json.dumps(self._public()).encode()
        return f"{signed}.{_part(mac.sign(signed.encode(), secret))}"

    def _claims(self, tenant: str | None, claims: dict[str, Any]) -> dict[str, Any]:
        now = int(time.time())
        whole = {
            "iss": self.name,
            "aud": AUDIENCE,
            "sub": tenant,
            "iat": now - 60,
            "exp": now + LIFETIME,
            **claims,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def _public(self) -> dict[str, Any]:
        public = RSAAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return {**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}


def altered(token: str, **claims: Any) -> str:
    """Return a token with claims replaced under the old signature."""
    head, _, signature = token.split(".")
    changed = {**jwt.decode(token, options={"verify_signature": False}), **claims}
    return ".".join([head, _part(json.dumps(changed)), signature])


def _part(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
