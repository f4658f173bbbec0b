"""The probe of the embedding model: as a worker asks it, and whether its vectors say anything."""

from __future__ import annotations

from functools import partial

from engine.errors import EmbeddingFailed
from engine.ports import Embedder
from extproc.doctor.findings import Finding, Verdict
from extproc.doctor.probes import Bench, Probe
from extproc.embedding.opening import open_embedder
from extproc.embedding.vectors import floats
from extproc.settings import Settings, SettingsError

_TEXTS = ("The cat sleeps on the warm roof.", "The invoice is due at the end of May.")
# Of texts that have nothing in common: what is alike to this degree is one vector for everything.
_SAME = 0.9999


def embedding_probes(settings: Settings) -> tuple[tuple[str, Probe], ...]:
    """Return the probes of the embedding model; none, where the settings name none."""
    if settings.embeddings.source is None:
        return ()
    return (("embeddings", partial(_embeddings, settings)),)


async def _embeddings(settings: Settings, bench: Bench) -> Finding:
    """Two passages and a question."""
    try:
        async with open_embedder(settings) as embedder:
            assert embedder is not None
            return await _judged(embedder)
    except EmbeddingFailed as failed:
        advice = None if failed.passing else "does the server have this model, for embeddings?"
        return Finding(Verdict.BROKEN, failed.message, advice=advice)
    except SettingsError as error:
        return Finding(Verdict.BROKEN, str(error))


async def _judged(embedder: Embedder) -> Finding:
    one, other = map(floats, await embedder.embed(_TEXTS, "passage"))
    await embedder.embed(["Where does the cat sleep?"], "query")
    if sum(a * b for a, b in zip(one, other, strict=True)) > _SAME:
        return Finding(Verdict.BROKEN, f"{embedder.model} gives different texts the same vector")
    return Finding(Verdict.WORKS, f"{embedder.model}, {len(one)} dimensions")
