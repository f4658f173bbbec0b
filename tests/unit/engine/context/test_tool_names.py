"""`engine.context.tool_names`: what the model calls the tools that the gateway runs (T5)."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from engine.context.tool_names import shown_names


def test_a_tool_keeps_its_name_while_it_is_the_only_one() -> None:
    """The model does best with the name that the tool's author chose."""
    names = shown_names([("crm", "search"), ("shop", "buy")], taken={"mine"})

    assert names == {("crm", "search"): "search", ("shop", "buy"): "buy"}


def test_tools_of_one_name_are_shown_with_their_labels() -> None:
    """T5: both of them, so that the order of the declarations does not matter."""
    tools = [("crm", "search"), ("shop", "search"), ("shop", "buy")]
    names = shown_names(tools, taken=())

    assert list(names.values()) == ["crm__search", "shop__search", "buy"]
    assert shown_names(tools[::-1], taken=()) == names


def test_the_clients_functions_keep_their_names() -> None:
    """T5, T7: a call of the client's own function must go to the client."""
    assert shown_names([("crm", "search")], taken={"search"}) == {("crm", "search"): "crm__search"}


def test_a_name_that_is_no_function_name_becomes_one() -> None:
    """Model servers refuse dots, spaces and long names."""
    names = shown_names([("a", "files.read"), ("a", "files read"), ("a", "n" * 80)], taken=())

    assert len(set(names.values())) == 3
    assert re.fullmatch(r"files_read_[0-9a-f]{8}", names[("a", "files.read")])
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names.values())


def test_names_that_meet_by_their_labels_are_kept_apart() -> None:
    """T5: `a__b` of label `c`, and `b` of label `a`."""
    tools = [("a", "b"), ("x", "b"), ("c", "a__b"), ("a__b", "c"), ("a", "b__c"), ("d", "b__c")]
    names = shown_names(tools, taken={"c"})

    assert len(set(names.values())) == len(tools)


_WORD = st.text("ab_. é", max_size=5)


@given(
    tools=st.lists(st.tuples(st.text("ab_", min_size=1, max_size=3), _WORD), unique=True),
    taken=st.sets(_WORD),
)
def test_every_name_is_unique_and_a_function_name(
    tools: list[tuple[str, str]], taken: set[str]
) -> None:
    """T5, for whatever the servers call their tools."""
    shown = list(shown_names(tools, taken).values())

    assert len(set(shown)) == len(tools)
    assert not taken & set(shown)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in shown)
