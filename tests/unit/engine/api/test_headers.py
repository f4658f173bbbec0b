"""`engine.api.headers`: what our request headers may say."""

from __future__ import annotations

import pytest

from engine.api.headers import read_idempotency_key, read_on_disconnect
from engine.errors import InvalidRequest


def test_the_policy_is_the_requests_or_the_default() -> None:
    """P3: setting and header."""
    assert read_on_disconnect(None, "cancel") == "cancel"
    assert read_on_disconnect("continue", "cancel") == "continue"
    assert read_on_disconnect("cancel", "continue") == "cancel"
    assert read_on_disconnect("cancel", "cancel", chosen=False) == "cancel"
    with pytest.raises(InvalidRequest, match="Expected 'cancel'"):
        read_on_disconnect("continue", "cancel", chosen=False)


@pytest.mark.parametrize("value", ["", "Cancel", "stop", "cancel, continue"])
def test_another_policy_is_refused(value: str) -> None:
    """H1: 400 with the header's name as `param`."""
    with pytest.raises(InvalidRequest) as refused:
        read_on_disconnect(value, "continue")
    assert (refused.value.param, refused.value.code) == ("holdfast-on-disconnect", "invalid_value")


@pytest.mark.parametrize("key", ["k", "8e03978e-40d5-43dd-bc93-6894a57f9324", "x" * 255])
def test_a_key_is_any_visible_text(key: str) -> None:
    """As long as the store can keep it as a name."""
    assert read_idempotency_key(key, store=True) == key
    assert read_idempotency_key(None, store=False) is None


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_another_key_is_refused(key: str) -> None:
    """H1: 400 with the header's name as `param`."""
    with pytest.raises(InvalidRequest) as refused:
        read_idempotency_key(key, store=True)
    assert refused.value.param == "idempotency-key"


def test_a_key_needs_a_response_that_is_stored() -> None:
    """H1: a retry could be given nothing."""
    with pytest.raises(InvalidRequest) as refused:
        read_idempotency_key("k", store=False)
    assert refused.value.param == "store"
