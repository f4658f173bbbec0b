"""`extproc.doctor.probes_embeddings`: an embedding model that is well, and ones that are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extproc.doctor.examination import examine
from extproc.doctor.findings import Finding, Verdict
from extproc.settings import Settings
from tests.support.embeddings_server import Changed, EmbeddingsServer, Fault, Step
from tests.support.patient import Patient


@pytest.fixture
async def patient() -> AsyncIterator[Patient]:
    async with Patient() as server:
        yield server


async def examined(patient: Patient, **embeddings: object) -> list[Finding]:
    """Return what is found of the embedding model alone."""
    settings = Settings().having(model={"url": patient.url}, embeddings=embeddings)
    async with asyncio.timeout(60):
        report = await examine(settings, None, deadline=30, probes=[])
    assert [found.probe for found in report.diagnoses] == ["embeddings"] * len(report.diagnoses)
    return [found.finding for found in report.diagnoses]


async def test_without_an_embedding_model_none_is_looked_at(patient: Patient) -> None:
    """Nothing is wrong with that."""
    assert await examined(patient) == []


async def test_a_model_of_a_server_is_named_with_its_dimensions(patient: Patient) -> None:
    """As a worker asks it: what the settings have is what is tried."""
    async with EmbeddingsServer() as server:
        (found,) = await examined(patient, source="upstream", model="bge-m3", url=server.url)

    assert found == Finding(Verdict.WORKS, "bge-m3, 32 dimensions")


async def test_the_local_model_is_tried_too(patient: Patient, minilm_cache: Path) -> None:
    """Its packages, its cache, and what it makes."""
    (found,) = await examined(patient, source="local", cache_dir=minilm_cache)

    assert found.verdict is Verdict.WORKS
    assert found.detail.endswith(", 384 dimensions")


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Fault(404, "The model `x` does not exist."), "does not exist"),
        (
            Changed(
                lambda answer: [entry.update(embedding=[1.0] * 32) for entry in answer["data"]]
            ),
            "different texts the same vector",
        ),
    ],
)
async def test_what_is_wrong_is_said(patient: Patient, step: Step, told: str) -> None:
    """In the server's words, or in ours."""
    async with EmbeddingsServer() as server:
        server.script(step)
        (found,) = await examined(patient, source="upstream", model="x", url=server.url)

    assert found.verdict is Verdict.BROKEN
    assert told in found.detail
