"""`engine.upstream.json_scan`: the end of an object, in any split (R7)."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.upstream.json_scan import JsonScan, documents

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[]\n', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\{', max_size=3), inner)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text('a"\\}', max_size=3), VALUES, max_size=3)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(OBJECTS, st.text('{}"x ', max_size=4), st.lists(st.integers(0, 60), max_size=6))
def test_the_end_is_found_in_any_split(
    value: dict[str, object], behind: str, cuts: list[int]
) -> None:
    """R7: behind the last bracket, whatever stands in its strings."""
    whole = json.dumps(value)
    text = whole + behind
    bounds = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    scan = JsonScan()
    for start, end in itertools.pairwise(bounds):
        found = scan.feed(text[start:end])
        assert (found is None) == (end < len(whole))
        if found is not None:
            assert start + found == len(whole)
            break


@pytest.mark.parametrize("text", ["", "  ", "3", '"{}', "}", "]}", "null", '{"a": "}'])
def test_what_has_no_end_has_none(text: str) -> None:
    """Only objects and arrays end; brackets in strings are none."""
    scan = JsonScan()
    assert scan.feed(text) is None
    assert not scan.done


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', ['{"a": 1}']),
        ('{"a": 1}{"b": "}{"} \n{}', ['{"a": 1}', '{"b": "}{"}', "{}"]),
        ("", []),
        ("{} x", []),
        ("{}{", []),
        ("[1]", []),
    ],
)
def test_joined_objects_are_told_apart(text: str, found: list[str]) -> None:
    """R7: but only where nothing else is there."""
    assert documents(text) == found


def test_many_objects_are_told_apart_in_work_that_grows_with_the_text() -> None:
    """X5: in a process of its own, whose minutes would not do if each took the rest of the text anew."""
    script = (
        "from engine.upstream.json_scan import documents;print(len(documents('{} ' * 1_000_000)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1000000"]
