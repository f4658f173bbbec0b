"""Embeddings of a server: in batches, with patience, and with texts cut that the model cannot take.

Which length a server's model takes is not known, and servers count in tokens of their own. So texts go out
whole; a batch that is refused for its length is halved, and a text that is refused alone is cut: to what the
server says that fits, or to half. That costs a few requests for texts that are too long, and none for others.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from engine.errors import EmbeddingFailed, EngineError, UpstreamFailed
from engine.ports import EmbeddingKind, ModelClient
from engine.retries import ONCE
from engine.upstream.refusal import refusal
from extproc.embedding.patience import Patience
from extproc.embedding.texts import well_formed
from extproc.embedding.wire import PATH, Asked, Malformed, dimensions_of, read_vectors

_log = logging.getLogger(__name__)

_BATCH_BYTES = 1 << 20
_ERROR_BYTES = 64 << 10
# An answer that is longer is read in a thread: requests are served between its vectors.
_READ_AT_ONCE = 64 << 10
# More than 8,192 numbers of 25 characters.
_VECTOR_BYTES = 256 << 10
_CUTS = 8
# A little less than what is said to fit: tokens are not spread evenly over a text.
_MARGIN = 0.9
# The limit and the count of a text, as vLLM and OpenAI, text-embeddings-inference, and llama.cpp name them.
_COUNTS = re.compile(
    r"(\d{1,9}) (?:input |prompt )?tokens|(?:given|batch size): (\d{1,9})", re.IGNORECASE
)

# Sentences about a size that `refusal` does not know, because only embeddings are asked for many texts at
# once: llama.cpp, OpenAI, text-embeddings-inference.
_TOO_MUCH = re.compile(
    r"too large to process|max \d+ tokens per request|maximum allowed batch size|input is too long"
    r"|array too long|payload too large|length limit exceeded",
    re.IGNORECASE,
)
_ENCODING = re.compile(r"encoding_format|base64", re.IGNORECASE)
# What other statuses refuse is not the text: a key, a path, a model.
_ABOUT_TEXTS = (400, 413, 422)


class EmbeddingModel(msgspec.Struct, frozen=True):
    """What is asked for: the server's name of the model, and what is put in front of texts."""

    name: str
    dimensions: int | None = None
    query_prefix: str = ""
    passage_prefix: str = ""

    @property
    def identity(self) -> str:
        """The name under which vectors can be compared: `bge-m3:1024`.

        A prefix of passages is part of it, as a digest: with another one, all vectors are others.
        """
        name = self.name if self.dimensions is None else f"{self.name}:{self.dimensions}"
        if not self.passage_prefix:
            return name
        return f"{name}#{hashlib.sha256(self.passage_prefix.encode()).hexdigest()[:8]}"

    def prefixed(self, text: str, kind: EmbeddingKind) -> str:
        """Return the text as the model is given it; servers refuse an empty one."""
        prefix = self.query_prefix if kind == "query" else self.passage_prefix
        return prefix + well_formed(text) or " "


class _TooLong(Exception):
    """A batch was refused for its size; `share` is the part of its one text that fits, where it is known."""

    def __init__(self, share: float | None, failed: EmbeddingFailed) -> None:
        super().__init__()
        self.share = share
        self.failed = failed


class UpstreamEmbedder:
    """Asks a server for embeddings, `batch` texts at a time."""

    def __init__(
        self, client: ModelClient, model: EmbeddingModel, *, batch: int, patience: Patience
    ) -> None:
        self.model = model.identity
        self._asked = model
        self._client = client
        self._batch = batch
        self._patience = patience
        self._encoding = "base64"
        self._length: int | None = model.dimensions
        self._told_of_cuts = False

    @property
    def at_once(self) -> int:
        """How many texts one call should bring at most: one request's."""
        return self._batch

    async def embed(self, texts: Sequence[str], kind: EmbeddingKind) -> list[bytes]:
        """Return a unit vector for each text; raises EmbeddingFailed."""
        prefixed = [self._asked.prefixed(text, kind) for text in texts]
        vectors: list[bytes] = []
        for batch in _batches(prefixed, self._batch):
            try:
                vectors += await self._embedded(batch, self._patience.deadline())
            except EmbeddingFailed as failed:
                failed.refused = failed.refused and await self._takes_others(kind)
                raise
        return vectors

    async def _takes_others(self, kind: EmbeddingKind) -> bool:
        """Return whether the server takes a text that nobody can mind.

        If not, what it refuses is how it is asked: a model or dimensions that it does not have.
        """
        attempt = partial(self._ask, [self._asked.prefixed("a", kind)])
        try:
            await self._patience.keep_trying(attempt, self._patience.deadline())
        except (EmbeddingFailed, _TooLong):
            return False
        return True

    async def _embedded(self, texts: Sequence[str], deadline: float) -> list[bytes]:
        try:
            return await self._patience.keep_trying(partial(self._ask, texts), deadline)
        except _TooLong as refused:
            if len(texts) == 1:
                return [await self._cut(texts[0], refused, deadline)]
        # The longest together: what is left is likely to fit.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place].encode()))
        half = (len(order) + 1) // 2
        found: dict[int, bytes] = {}
        for places in (order[:half], order[half:]):
            vectors = await self._embedded([texts[place] for place in places], deadline)
            found.update(zip(places, vectors, strict=True))
        return [found[place] for place in range(len(texts))]

    async def _cut(self, text: str, refused: _TooLong, deadline: float) -> bytes:
        """Return the vector of as much of a text's beginning as the model takes."""
        whole = len(text)
        for _ in range(_CUTS):
            share = refused.share
            text = text[: max(1, int(len(text) * (0.5 if share is None else share)))]
            try:
                (vector,) = await self._patience.keep_trying(partial(self._ask, [text]), deadline)
            except _TooLong as again:
                refused = again
            else:
                self._tell_of_cut(whole, len(text))
                return vector
        raise refused.failed

    def _tell_of_cut(self, whole: int, kept: int) -> None:
        if not self._told_of_cuts:
            _log.warning(
                "%s does not take texts of this length: one of %d characters was cut to %d (said once); "
                "smaller chunks would lose nothing",
                self.model,
                whole,
                kept,
            )
        self._told_of_cuts = True

    async def _ask(self, texts: Sequence[str]) -> list[bytes]:
        """Send one request; raises EmbeddingFailed, or _TooLong."""
        encoding = self._encoding
        asked = Asked(self._asked.name, texts, encoding, self._asked.dimensions)
        try:
            status, body, retry_after = await self._send(asked)
        except UpstreamFailed as lost:
            raise EmbeddingFailed(
                f"The embedding model failed: {lost.message}", passing=True
            ) from lost
        if status == 200:
            return self._checked(await self._vectors(body, len(texts)))
        problem = refusal(status, body, retry_after)
        if status in (400, 422) and encoding == "base64" and _ENCODING.search(problem.message):
            self._encoding = "float"
            return await self._ask(texts)
        failed = _failed(status, problem)
        if _is_too_long(status, problem):
            raise _TooLong(_share_that_fits(problem.message), failed)
        raise failed

    async def _send(self, asked: Asked) -> tuple[int, bytes, int | None]:
        # What is tried again is tried again here, so Envoy is not to multiply it.
        answer = await self._client.call(PATH, msgspec.json.encode(asked), ONCE)
        try:
            most = len(asked.input) * _VECTOR_BYTES if answer.status == 200 else _ERROR_BYTES
            return answer.status, await answer.read(most), answer.retry_after
        finally:
            await answer.finish()

    async def _vectors(self, body: bytes, count: int) -> list[bytes]:
        try:
            if len(body) <= _READ_AT_ONCE:
                return read_vectors(body, count)
            return await asyncio.to_thread(read_vectors, body, count)
        except Malformed as malformed:
            raise EmbeddingFailed(
                f"The embedding model's answer is wrong: {malformed}."
            ) from malformed

    def _checked(self, vectors: list[bytes]) -> list[bytes]:
        length = dimensions_of(vectors[0])
        known = length if self._length is None else self._length
        self._length = length if self._asked.dimensions is None else known
        if length != known:
            # Said once for each change: which of the two is right is known to the index, not here.
            raise EmbeddingFailed(
                f"The embedding model's vectors have {length} dimensions, and not {known}."
            )
        return vectors


def _batches(texts: Sequence[str], most: int) -> Iterator[list[str]]:
    """Yield the texts in order, bounded by count and by bytes; a text is never divided."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == most or size + length > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def _failed(status: int, problem: EngineError) -> EmbeddingFailed:
    failed = EmbeddingFailed(
        f"The embedding model answered {status}: {problem.message[:300]}",
        passing=status in (408, 425, 429) or status >= 500,
        refused=status in _ABOUT_TEXTS,
    )
    failed.retry_after = problem.retry_after
    return failed


def _is_too_long(status: int, problem: EngineError) -> bool:
    if problem.code == "context_length_exceeded" or status == 413:
        return True
    return status != 429 and _TOO_MUCH.search(problem.message) is not None


def _share_that_fits(message: str) -> float | None:
    """Return how much of a text fits, from the limit and the count that a server's message names.

    "maximum context length is 512 tokens. However, you requested 1451 tokens": a bit less than a third.
    """
    counts = sorted({int(one or other) for one, other in _COUNTS.findall(message[:2000])})
    if len(counts) != 2 or counts[0] == 0:
        return None
    return _MARGIN * counts[0] / counts[1]
