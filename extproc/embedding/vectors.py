"""Vectors as the engine keeps them: unit length, little-endian float32."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

FLOAT_BYTES = 4


def unit(values: Sequence[float]) -> bytes:
    """Return the vector of the same direction and unit length; raises ValueError where there is none."""
    length = math.hypot(*values)
    if not math.isfinite(length):
        raise ValueError("a vector has a number that is not finite")
    if length == 0.0:
        raise ValueError("a vector is empty or all zero")
    return struct.pack(f"<{len(values)}f", *(value / length for value in values))


def floats(vector: bytes) -> tuple[float, ...]:
    """Return the numbers of a vector of float32; raises ValueError where its bytes are none."""
    if len(vector) % FLOAT_BYTES:
        raise ValueError("a vector is no sequence of float32")
    return struct.unpack(f"<{len(vector) // FLOAT_BYTES}f", vector)
