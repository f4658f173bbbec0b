"""Milvus's filters, and the names in them: nothing of a tenant is ever spelled out in one.

Filters are text, and Lite takes no parameters for them. What comes from outside (tenants, stores,
attachments) becomes a digest in hexadecimal first; so there is nothing to escape.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable
from weakref import WeakKeyDictionary

MODEL_DIGEST_LENGTH = 16
LOT = 1000
"""So many attachments are named in one filter."""

# Digests of so many take less than a millisecond.
_AT_ONCE = 500


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


def within(scope: str, names: str | None = None) -> str:
    """Return the filter for a scope, or for some attachments (a lot of `NameLots`) in it."""
    if names is None:
        return f'scope == "{scope}"'
    return f'scope == "{scope}" and name in [{names}]'


class NameLots:
    """Attachments as filters list them, in lots of so many; worked out once for each frozenset.

    One search asks with the same set for each of its queries, by vector and by words, and digests of ten
    thousand attachments take 16 ms. What was worked out is forgotten with the set.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[frozenset[str], list[str]] = WeakKeyDictionary()
        self._working = asyncio.Lock()

    async def of(self, attachments: Collection[str]) -> list[str]:
        """Return the lots; many are worked out in a thread."""
        if len(attachments) <= _AT_ONCE:
            return _lots(attachments)
        if not isinstance(attachments, frozenset):
            return await asyncio.to_thread(_lots, attachments)
        async with self._working:
            lots = self._known.get(attachments)
            if lots is None:
                lots = self._known[attachments] = await asyncio.to_thread(_lots, attachments)
        return lots


def _lots(attachments: Iterable[str]) -> list[str]:
    names = sorted({f'"{name_of(attachment)}"' for attachment in attachments})
    return [", ".join(names[start : start + LOT]) for start in range(0, len(names), LOT)]


def _digest(*parts: str) -> str:
    return _digest_of(part.encode(errors="surrogatepass") for part in parts)


def _digest_of(parts: Iterable[bytes]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        # With its length, so that no two lists of parts are one text.
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
