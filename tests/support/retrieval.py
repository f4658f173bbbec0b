"""Small real parts for retrieval: words hashed into vectors, texts cut at words."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator, Sequence
from zlib import crc32

from engine.errors import ExtractionRefused
from engine.ports import Chunking, EmbeddingKind
from extproc.retrieval import RetrievalMeans
from storage.words import words_of
from tests.support.exact_index import ExactIndex

_DIMENSIONS = 256


class HashedEmbedder:
    """A text's vector counts its words, each in the place that its checksum says.

    `faults` are raised by the next calls, one each; `gate` is waited for by each call that comes after
    `free` texts were embedded.
    """

    def __init__(self, model: str = "hashed") -> None:
        self.model = model
        self.at_once = 4
        self.embedded: list[str] = []
        self.faults: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.free = 0
        self.reached = asyncio.Event()

    async def embed(self, texts: Sequence[str], kind: EmbeddingKind) -> list[bytes]:
        assert 0 < len(texts) <= self.at_once
        if self.gate is not None and len(self.embedded) >= self.free:
            self.reached.set()
            await self.gate.wait()
        if self.faults:
            raise self.faults.pop(0)
        if kind == "passage":
            self.embedded += texts
        return [hashed(text) for text in texts]


def hashed(text: str) -> bytes:
    """Return the vector of a text, of unit length."""
    counts = array("f", [0.0] * _DIMENSIONS)
    for word in words_of(text) or ["-"]:
        counts[crc32(word.encode()) % _DIMENSIONS] += 1
    length = math.sqrt(sum(count * count for count in counts))
    return array("f", [count / length for count in counts]).tobytes()


class PlainExtraction:
    """Reads UTF-8, one word a token. `faults` are raised by the next calls, one each."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.faults: list[Exception] = []

    async def text(self, filename: str, pieces: AsyncIterator[bytes], *, most: int) -> str:
        return (await self._whole(filename, pieces))[:most]

    async def chunks(
        self, filename: str, pieces: AsyncIterator[bytes], chunking: Chunking
    ) -> Sequence[str]:
        words = (await self._whole(filename, pieces)).split()
        step = chunking.size - chunking.overlap
        firsts = range(0, max(1, len(words) - chunking.overlap), step)
        cut = [words[first : first + chunking.size] for first in firsts]
        return [" ".join(some) for some in cut]

    async def _whole(self, filename: str, pieces: AsyncIterator[bytes]) -> str:
        self.read.append(filename)
        if self.faults:
            raise self.faults.pop(0)
        data = b"".join([piece async for piece in pieces])
        if filename.endswith(".exe"):
            raise ExtractionRefused("Programs are not read.", code="unsupported_file")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ExtractionRefused("This is no text.") from None


class RetrievalRig:
    """The means of an engine that retrieves, its parts at hand."""

    def __init__(self) -> None:
        self.embedder = HashedEmbedder()
        self.extraction = PlainExtraction()
        self.index = ExactIndex()

    @property
    def means(self) -> RetrievalMeans:
        return RetrievalMeans(self.embedder, self.index)
