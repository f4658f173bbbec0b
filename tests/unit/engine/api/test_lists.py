"""`engine.api.lists`: query strings and list objects (H2)."""

from __future__ import annotations

import json

import pytest

from engine.api.lists import (
    ListQuery,
    RetrieveQuery,
    list_object,
    no_parameters,
    parse_list,
    parse_retrieve,
)
from engine.errors import InvalidRequest

ALL = ("limit", "after", "order", "model")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ListQuery()),
        ("limit=1", ListQuery(limit=1)),
        ("limit=100&order=asc", ListQuery(limit=100, order="asc")),
        ("after=resp_1&model=m%2F1", ListQuery(after="resp_1", model="m/1")),
        ("include=file_search_call.results", ListQuery()),
        ("include%5B%5D=file_search_call.results&include[]=web_search_call.results", ListQuery()),
        ("include[0]=reasoning.encrypted_content", ListQuery()),
        ("limit=5&limit=6", ListQuery(limit=6)),
    ],
)
def test_a_query_is_read(query: str, expected: ListQuery) -> None:
    """With the API's defaults; arrays come in three spellings."""
    assert parse_list(query, ALL) == expected


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "invalid_value"),
        ("limit=101", "limit", "invalid_value"),
        ("limit=", "limit", "invalid_value"),
        ("limit=x", "limit", "invalid_value"),
        ("limit=-1", "limit", "invalid_value"),
        ("limit=1.5", "limit", "invalid_value"),
        ("limit=%C2%B2", "limit", "invalid_value"),
        ("limit=" + "9" * 5000, "limit", "invalid_value"),
        ("order=up", "order", "invalid_value"),
        ("after=", "after", "invalid_value"),
        ("model=", "model", "invalid_value"),
        ("before=x", "before", "unknown_parameter"),
        ("x=1", "x", "unknown_parameter"),
        ("include=x", "include", "invalid_value"),
    ],
)
def test_a_wrong_query_is_refused(query: str, param: str, code: str) -> None:
    """H2: 400 with `param`."""
    with pytest.raises(InvalidRequest) as caught:
        parse_list(query, ALL)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("query", "stream", "after"),
    [
        ("", False, -1),
        ("include=file_search_call.results", False, -1),
        ("stream=false", False, -1),
        ("stream=true", True, -1),
        ("stream=true&starting_after=0", True, 0),
        ("starting_after=17&stream=true&include_obfuscation=false", True, 17),
    ],
)
def test_a_response_can_be_retrieved_with_these(query: str, stream: bool, after: int) -> None:
    """P6: whole, or its events behind a number; nothing is ever left out of a stored response."""
    assert parse_retrieve(query) == RetrieveQuery(stream, after)


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("stream=1", "stream", "invalid_value"),
        ("starting_after=5", "starting_after", "invalid_value"),
        ("stream=false&starting_after=5", "starting_after", "invalid_value"),
        ("stream=true&starting_after=-1", "starting_after", "invalid_value"),
        ("stream=true&starting_after=x", "starting_after", "invalid_value"),
        ("stream=true&starting_after=", "starting_after", "invalid_value"),
        ("include_obfuscation=true", "include_obfuscation", "unsupported_value"),
        ("include[]=x", "include", "invalid_value"),
        ("limit=1", "limit", "unknown_parameter"),
    ],
)
def test_a_wrong_retrieval_is_refused(query: str, param: str, code: str) -> None:
    """H1."""
    with pytest.raises(InvalidRequest) as caught:
        parse_retrieve(query)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_some_operations_have_no_parameters() -> None:
    """H1: also there nothing is ignored."""
    no_parameters("")
    with pytest.raises(InvalidRequest) as caught:
        no_parameters("force=true")
    assert caught.value.param == "force"


def test_a_list_says_where_it_begins_and_ends() -> None:
    """H2: `has_more` always; the ids are null on an empty page."""
    page = json.loads(list_object([b'{"id":"a"}', b'{"id":"b"}'], ["a", "b"], has_more=True))
    assert page == {
        "object": "list",
        "data": [{"id": "a"}, {"id": "b"}],
        "first_id": "a",
        "last_id": "b",
        "has_more": True,
    }
    empty = json.loads(list_object([], [], has_more=False))
    assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, False)
