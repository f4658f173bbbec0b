"""`engine.response.consent`: what a request for consent holds for (rule T6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.mcp import parse_mcp_tool
from engine.response.consent import (
    Asking,
    canonical,
    holds_for,
    is_sealed,
    is_sealed_for,
    unpack,
)

STEM = "mcpr_" + "0" * 32 + "0003"
KEYS: tuple[bytes, ...] = (b"new" * 11, b"old" * 11)
TOOL = {
    "type": "mcp", "server_label": "s", "server_url": "https://x.example.com/a",
    "authorization": "token", "headers": {"x-key": "1"},
}  # fmt: skip
OTHERS: list[tuple[str, Any]] = [
    ("server_url", "https://x.example.com/b"),
    ("authorization", "other"),
    ("authorization", None),
    ("headers", {"x-key": "2"}),
    ("headers", None),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
)


def server(**changed: Any) -> Any:
    return parse_mcp_tool({**TOOL, **changed}, "tools[0]")


def test_a_stored_request_keeps_its_id_and_no_secret() -> None:
    """X4: what is stored has neither URL nor credentials, and another fingerprint for each request."""
    one, two = (Asking().ask(f"{STEM}{n}", server(), "pay", "{}", "pay") for n in "12")
    assert one[0] == f"{STEM}1"
    for secret in (b"token", b"example", b"x-key"):
        assert secret not in one[1].pack()
    assert one[1].holds_for != two[1].holds_for
    assert unpack(one[1].pack()) == one[1]


@pytest.mark.parametrize(("field", "value"), OTHERS)
def test_it_holds_for_one_server_with_its_credentials(field: str, value: Any) -> None:
    """T6."""
    request_id, consent = Asking().ask(STEM, server(), "pay", "{}", "pay")
    assert holds_for(consent, request_id, server())
    assert not holds_for(consent, request_id, server(**{field: value}))
    assert not holds_for(consent, f"{STEM}x", server())


@pytest.mark.parametrize(("field", "value"), OTHERS)
@pytest.mark.parametrize("keys", [KEYS, ()])
def test_an_id_with_a_digest_vouches_for_its_call(
    field: str, value: Any, keys: tuple[bytes, ...]
) -> None:
    """T6, X4: with a key for credentials too, without one for none: they could be guessed from it."""
    request_id, _ = Asking(stored=False, keys=keys).ask(STEM, server(), "pay", '{"n":1}', "pay")
    assert len(request_id) <= 64
    assert is_sealed(request_id)
    assert not is_sealed(STEM)
    assert is_sealed_for(request_id, server(), "pay", '{ "n" : 1 }', keys)
    assert not is_sealed_for(request_id, server(), "pay", '{"n":2}', keys)
    assert not is_sealed_for(request_id, server(), "pal", '{"n":1}', keys)
    assert not is_sealed_for(request_id, server(server_label="t"), "pay", '{"n":1}', keys)
    changed = is_sealed_for(request_id, server(**{field: value}), "pay", '{"n":1}', keys)
    assert changed is (not keys and field != "server_url")
    assert not is_sealed_for(request_id, server(), "pay", '{"n":1}', (b"another",))


def test_older_keys_vouch_too() -> None:
    """T6: keys rotate."""
    request_id, _ = Asking(stored=False, keys=KEYS[1:]).ask(STEM, server(), "pay", "{}", "pay")
    assert is_sealed_for(request_id, server(), "pay", "{}", KEYS)


@given(value=JSON)
def test_arguments_are_compared_as_json(value: Any) -> None:
    """T6: by value, whatever their spelling."""
    spaced = json.dumps(value, indent=1, sort_keys=True)
    assert canonical(spaced) == canonical(json.dumps(value, ensure_ascii=False))
    assert canonical(spaced) != canonical(json.dumps([value]))


@pytest.mark.parametrize("text", ["", "{not", "\x00", '{"a":1e999}', "[" * 5000])
def test_what_is_no_json_is_compared_as_it_is(text: str) -> None:
    """T6, T7: the model may write anything."""
    assert canonical(text) == text.encode()
