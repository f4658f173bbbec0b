"""Little-endian float32 as Postgres takes arrays of `real`: in binary, without a Python float for each."""

from __future__ import annotations

import struct
import sys
from array import array

from psycopg.adapt import Dumper
from psycopg.pq import Format

_OID_OF_REAL = 700
_OID_OF_REALS = 1021
_FOUR = int.from_bytes(struct.pack(">i", 4), sys.byteorder)


class Floats:
    """Vectors one behind the other, as the port has them."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data) // 4


class FloatsDumper(Dumper):
    """Writes `Floats` in the binary format of `real[]`: each number behind its size."""

    format = Format.BINARY
    oid = _OID_OF_REALS

    def dump(self, obj: Floats) -> bytes:
        """Return one dimension without NULLs, counted from 1."""
        numbers = array("I", obj.data)
        if sys.byteorder == "little":
            numbers.byteswap()
        sized = array("I", [_FOUR]) * (2 * len(numbers))
        sized[1::2] = numbers
        return struct.pack(">iiIii", 1, 0, _OID_OF_REAL, len(numbers), 1) + sized.tobytes()
