"""`POST /v1/embeddings` as bytes: what is asked, and whether the answer is one."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from extproc.embedding.vectors import FLOAT_BYTES, floats, unit

PATH = "/v1/embeddings"


class Asked(msgspec.Struct, omit_defaults=True):
    """The request; `dimensions` only where the settings have it: not every model can be asked for it."""

    model: str
    input: Sequence[str]
    encoding_format: str
    dimensions: int | None = None


class Malformed(ValueError):
    """The answer is not one to what was asked; the message says why, and shows nothing of it."""


class _Entry(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Entry]


def read_vectors(body: bytes, count: int) -> list[bytes]:
    """Return the `count` vectors of an answer in the order of the texts, each of unit length.

    Their order is by `index`, where the server tells it. Raises Malformed.
    """
    try:
        entries = msgspec.json.decode(body, type=_Answer).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("the answer is no list of embeddings") from None
    if len(entries) != count:
        raise Malformed(f"the answer has {len(entries)} vectors for {count} texts")
    try:
        vectors = [unit(_numbers(entry.embedding)) for entry in _ordered(entries)]
    except ValueError as error:
        raise Malformed(str(error)) from None
    if len({len(vector) for vector in vectors}) > 1:
        raise Malformed("the vectors of one answer differ in length")
    return vectors


def dimensions_of(vector: bytes) -> int:
    """Return how many numbers a vector has."""
    return len(vector) // FLOAT_BYTES


def _ordered(entries: list[_Entry]) -> list[_Entry]:
    places = [entry.index for entry in entries]
    if all(place is None for place in places):
        return entries
    by_place = {entry.index: entry for entry in entries}
    if by_place.keys() != set(range(len(entries))):
        raise Malformed("the vectors are not numbered from 0, each once")
    return [by_place[place] for place in range(len(entries))]


def _numbers(embedding: str | list[float]) -> Sequence[float]:
    # Servers that do not know `encoding_format` answer with a list to whatever was asked.
    if isinstance(embedding, list):
        return embedding
    return floats(base64.b64decode(embedding, validate=True))
