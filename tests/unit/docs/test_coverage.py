"""docs/coverage.md is read from the routes and from the SDK."""

from __future__ import annotations

import pytest

from extproc.routes import ROUTES
from tests.support.coverage_table import DOCUMENT, SdkCall, sdk_calls, with_table


def test_the_table_is_what_the_code_says() -> None:
    """H3: `make docs` brings it up to date."""
    text = DOCUMENT.read_text()
    assert with_table(text) == text


@pytest.mark.parametrize(
    "call",
    [call for call in sdk_calls() if call.name.partition(".")[0] != "containers"],
    ids=lambda call: call.name,
)
def test_every_call_of_the_sdk_has_a_route(call: SdkCall) -> None:
    """H1: of what is stored, nothing passes to a model server that does not know it."""
    assert (call.method, call.shape) in {(method, shape) for method, shape, _ in ROUTES}


def test_calls_are_found_in_the_sdk() -> None:
    """H3: the table would be empty if the SDK were written otherwise."""
    named = {call.name: call for call in sdk_calls()}
    assert named["responses.create"] == SdkCall("responses.create", "POST", "/responses")
    assert named["vector_stores.search"].path == "/vector_stores/{vector_store_id}/search"
    assert len(named) > 40
