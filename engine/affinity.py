"""Which conversation a model turn belongs to, so that its turns meet the same model server (promise 5).

Each turn carries `x-holdfast-affinity`. Its value is a digest: of the tenant and of the *root*, which all
responses of a tree of threads share. Two tenants never have one value, and none can be turned back.

The root of a continuation is stored with its thread. Where a thread begins, or nothing is stored, it follows
from the request: a client that keeps the history itself, and sends all of it each time, begins a thread with
each turn, and yet its turns belong together. So it is made of `prompt_cache_key`, or else of what the
conversation begins with, as far as the first message of the user. Conversations that begin alike have one
value then, and one prefix that can be in one cache.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

HEADER = "x-holdfast-affinity"

_BYTES = 16


def root_of(prompt_cache_key: str | None, replay: Iterable[bytes]) -> str:
    """Return the root of a conversation that begins; `replay` is what the model is sent of its input."""
    if prompt_cache_key:
        return _digest(b"key", prompt_cache_key.encode("utf-8", "surrogatepass"))
    return _digest(b"items", *_beginning(replay))


def affinity(tenant: str, root: str) -> str:
    """Return the value of the header: 32 hexadecimal digits."""
    return _digest(b"affinity", tenant.encode(), root.encode())


class _Speaker(msgspec.Struct, frozen=True):
    role: str | None = None


_read_speaker = msgspec.json.Decoder(_Speaker).decode


def _beginning(replay: Iterable[bytes]) -> list[bytes]:
    items: list[bytes] = []
    for item in replay:
        items.append(item)
        if _speaker(item) == "user":
            break
    return items


def _speaker(item: bytes) -> str | None:
    try:
        return _read_speaker(item).role
    except msgspec.DecodeError:
        # Several items, that stand for one of the gateway's own calls.
        return None


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        # With its length, so that no two lists of parts read the same.
        digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()
