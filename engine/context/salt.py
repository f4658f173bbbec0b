"""A tenant's own part of the model server's prefix cache (vLLM's `cache_salt`). Pure.

Who shares a cache can measure what others have asked: a prompt that begins like one of theirs is answered
sooner. The price is that tenants do not share what they could, such as one system prompt.
"""

from __future__ import annotations

import hashlib

import msgspec

from engine.api.request import CreateRequest


def salted(request: CreateRequest, tenant: str) -> CreateRequest:
    """Return the request with the tenant's salt; the client's own divides the tenant's part further."""
    own = str(request.values.get("cache_salt", ""))
    # A client that could choose the salt could choose another tenant's.
    salt = hashlib.sha256(f"{tenant}\0{own}".encode()).hexdigest()
    return msgspec.structs.replace(request, values={**request.values, "cache_salt": salt})
