"""Fixtures of the local embedding model; a test that uses them is skipped where its packages are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.embedding.minilm import MiniLm, missing


@pytest.fixture(scope="session")
def minilm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the model's graph, which is made once in a test run."""
    if gone := missing():
        pytest.skip(f"not installed: {', '.join(gone)}")
    return tmp_path_factory.mktemp("minilm")


@pytest.fixture(scope="session")
def minilm(minilm_cache: Path) -> MiniLm:
    """The loaded model."""
    return MiniLm.load(minilm_cache, threads=1)
