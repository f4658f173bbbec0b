"""The import names are generic, so nothing else may own them."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from extproc.embedding import minilm


@pytest.mark.parametrize("name", ["extproc", "engine", "storage"])
def test_no_other_distribution_owns_our_import_names(name: str) -> None:
    """PyPI has an `extproc` and a `storage`: beside ours, each overwrites the other without a word."""
    owners = set(packages_distributions().get(name, []))

    assert owners <= {"holdfast"}


def test_the_extra_for_local_embeddings_has_all_that_the_model_needs() -> None:
    """What `extproc.embedding` says is missing can be installed by the extra and the lock of the model."""
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {re.split(r"[><=]", entry)[0] for entry in extras["local-embeddings"]}

    assert named == set(minilm.LIBRARIES)
    assert "holdfast[local-embeddings]" in extras["up"]
    assert (root / "requirements-model.lock").read_text().startswith(f"{minilm.PACKAGE}==")
    assert not named & {re.split(r"[><=\[]", entry)[0] for entry in project["dependencies"]}
