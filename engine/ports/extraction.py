"""What reads documents: foreign bytes are parsed in another process, within limits (rule X5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec


class Chunking(msgspec.Struct, frozen=True):
    """How a text is cut: chunks of at most `size` tokens, each beginning with `overlap` of the one before."""

    size: int = 800
    overlap: int = 400


class Extraction(Protocol):
    """Reads documents by their content and, where that does not tell, by their names.

    Every method takes the bytes as they come, within bounds of its own, and raises ExtractionRefused, which
    says what is wrong with the document, or ExtractionFailed, where the same may work later.
    """

    async def text(self, filename: str, pieces: AsyncIterator[bytes], *, most: int) -> str:
        """Return the text of a document; one of over `most` bytes of UTF-8 is refused."""
        ...

    async def chunks(
        self, filename: str, pieces: AsyncIterator[bytes], chunking: Chunking
    ) -> Sequence[str]:
        """Return the text of a document in chunks, in order, at least one."""
        ...
