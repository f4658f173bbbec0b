"""Milvus's filters, and the names in them: nothing of a tenant is ever spelled out in one.

Filters are text, and Lite takes no parameters for them. What comes from outside (tenants, stores,
attachments) becomes a digest in hexadecimal first; so there is nothing to escape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

MODEL_DIGEST_LENGTH = 16


def scope_of(tenant: str, store: str) -> str:
    """Return what the chunks of a tenant's store share."""
    return _digest(tenant, store)


def name_of(attachment: str) -> str:
    """Return what an attachment is called in a filter."""
    return _digest(attachment)


def key_of(scope: str, attachment: str, number: int) -> str:
    """Return the primary key of a chunk."""
    return _digest(scope, attachment, str(number))


def model_digest(model: str) -> str:
    """Return what a model is called in the names of collections."""
    return _digest(model)[:MODEL_DIGEST_LENGTH]


def within(scope: str, names: Sequence[str] | None = None) -> str:
    """Return the filter for a scope, or for some attachments (by `name_of`) in it."""
    if names is None:
        return f'scope == "{scope}"'
    listed = ", ".join(f'"{name}"' for name in names)
    return f'scope == "{scope}" and name in [{listed}]'


def _digest(*parts: str) -> str:
    return _digest_of(part.encode(errors="surrogatepass") for part in parts)


def _digest_of(parts: Iterable[bytes]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        # With its length, so that no two lists of parts are one text.
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
