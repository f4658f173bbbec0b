"""The import names are generic, so nothing else may own them."""

from __future__ import annotations

from importlib.metadata import packages_distributions

import pytest


@pytest.mark.parametrize("name", ["extproc", "engine", "storage"])
def test_no_other_distribution_owns_our_import_names(name: str) -> None:
    """PyPI has an `extproc` and a `storage`: beside ours, each overwrites the other without a word."""
    owners = set(packages_distributions().get(name, []))

    assert owners <= {"holdfast"}
