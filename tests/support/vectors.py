"""Vectors and chunks for tests of an index."""

from __future__ import annotations

import math
import random
from array import array

from engine.ports import IndexedChunk


def unit(*numbers: float) -> bytes:
    """Return a vector of unit length in the direction of these numbers."""
    length = math.sqrt(sum(number * number for number in numbers))
    return array("f", (number / length for number in numbers)).tobytes()


def random_unit(chance: random.Random, dimension: int) -> bytes:
    """Return a vector of a random direction."""
    return unit(*(chance.gauss(0, 1) for _ in range(dimension)))


def a_chunk(number: int, text: str = "", vector: bytes | None = None) -> IndexedChunk:
    """Return a chunk; its vector has four numbers unless one is given."""
    return IndexedChunk(number, text, unit(1, number, 0, 0) if vector is None else vector)
