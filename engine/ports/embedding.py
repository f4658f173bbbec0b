"""What turns text into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

EmbeddingKind = Literal["query", "passage"]


class Embedder(Protocol):
    """An embedding model. `model` names it for good: vectors of one name can be compared with each other."""

    model: str

    @property
    def at_once(self) -> int:
        """How many texts one call should bring at most."""
        ...

    async def embed(self, texts: Sequence[str], kind: EmbeddingKind) -> list[bytes]:
        """Return a vector of unit length for each text: little-endian float32, all of one length.

        A text that is too long for the model is cut. Raises EmbeddingFailed; `refused` says that it is for
        these texts, so that the same will not work later.
        """
        ...
