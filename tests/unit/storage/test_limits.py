"""Names that stores can hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.ports import FinishedResponse, Lease, StoredItem
from storage.limits import MAX_NAME_BYTES, check_finished, check_new, is_name, wanted
from tests.support.stored import a_response, an_item


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=128))
def test_text_is_a_name_and_wanted_as_it_is(text: str) -> None:
    """Any characters but NUL and surrogates."""
    assert is_name(text)
    assert wanted(text) == text


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "x" * (MAX_NAME_BYTES + 1), "é" * 300])
def test_what_cannot_be_stored_is_looked_up_as_something_that_nothing_is_called(text: str) -> None:
    """X1: so that it is not found, like any other unknown name."""
    assert not is_name(text)
    assert not is_name(wanted(text))
    wanted(text).encode()


def test_an_error_about_a_name_says_where_it_is() -> None:
    """H1: `param` is the field of the request; output is nobody's field."""
    with pytest.raises(InvalidRequest) as caught:
        check_new(a_response("t", "r", model="\0"))
    assert caught.value.param == "model"
    with pytest.raises(InvalidRequest) as caught:
        check_new(a_response("t", "r", input=[an_item("ok"), an_item("i", call_id="\0")]))
    assert caught.value.param == "input"
    item = StoredItem("i", "x" * 600, b"", None)
    finished = FinishedResponse(Lease("t", "r", 1), "completed", b"", [item])
    with pytest.raises(InvalidRequest) as caught:
        check_finished(finished)
    assert caught.value.param is None
