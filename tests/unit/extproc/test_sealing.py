"""`extproc.sealing`: opaque, tamper-evident, bound to tenant and purpose (X4)."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable

import pytest

from engine.errors import SealingUnavailable
from engine.ports import SealBroken, UnknownSealingKey
from extproc.sealing import KEY_BYTES, AesSealing, NoSealing, parse_key

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRET = b"sk-of-the-mcp-server"


@pytest.mark.parametrize("plain", [b"", SECRET, os.urandom(100_000)], ids=["none", "some", "much"])
def test_what_is_sealed_opens_again(plain: bytes) -> None:
    """X4: and shows nothing of itself; twice the same is not the same twice."""
    sealing = AesSealing([NEW])
    sealed = sealing.seal("t", "p", plain)
    assert sealing.unseal("t", "p", sealed) == plain
    assert sealed != sealing.seal("t", "p", plain)
    assert sealed.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert SECRET.decode() not in sealed


@pytest.mark.parametrize(
    ("tenant", "purpose"),
    [("other", "p"), ("t", "other"), ("", "tp"), ("tp", ""), ("p", "t"), ("t", "p ")],
)
def test_another_tenant_or_purpose_opens_nothing(tenant: str, purpose: str) -> None:
    """X4: nor where both written together read alike."""
    sealing = AesSealing([NEW])
    sealed = sealing.seal("t", "p", SECRET)
    with pytest.raises(SealBroken) as caught:
        sealing.unseal(tenant, purpose, sealed)
    assert type(caught.value) is SealBroken


CHANGES: dict[str, Callable[[str], str]] = {
    "the first letter of the body": lambda s: s[:21] + ("A" if s[21] != "A" else "B") + s[22:],
    "the last letter": lambda s: s[:-1] + ("A" if s[-1] != "A" else "B"),
    "cut": lambda s: s[:-4],
    "longer": lambda s: s + "AAAA",
    "padded": lambda s: s + "=",
    "a line end": lambda s: s + "\n",
    "another form": lambda s: "hf2" + s[3:],
    "no key id": lambda s: s.replace(".", "", 1),
    "empty": lambda _: "",
    "not ASCII": lambda s: s + "ä",
    "a lone surrogate": lambda s: s + "\ud800",
    "short": lambda s: s[:30],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_does_not_open(change: Callable[[str], str]) -> None:
    """X4: and the error repeats nothing of it."""
    sealing = AesSealing([NEW])
    changed = change(sealing.seal("t", "p", SECRET))
    with pytest.raises(SealBroken) as caught:
        sealing.unseal("t", "p", changed)
    assert not changed or changed not in str(caught.value)


def test_every_byte_counts() -> None:
    """X4: no place of the text can be changed."""
    sealing = AesSealing([NEW])
    sealed = sealing.seal("t", "p", b"x")
    for place, letter in enumerate(sealed):
        changed = sealed[:place] + ("A" if letter != "A" else "B") + sealed[place + 1 :]
        with pytest.raises(SealBroken):
            sealing.unseal("t", "p", changed)


def test_keys_are_rotated() -> None:
    """X4: the newest seals, the older ones still open; without its key, a text is told to be so."""
    before, both, after = AesSealing([OLD]), AesSealing([NEW, OLD]), AesSealing([NEW])
    old = before.seal("t", "p", SECRET)
    assert both.unseal("t", "p", old) == SECRET
    new = both.seal("t", "p", SECRET)
    assert after.unseal("t", "p", new) == SECRET
    for sealing, sealed in ((after, old), (before, new)):
        with pytest.raises(UnknownSealingKey):
            sealing.unseal("t", "p", sealed)


def test_without_a_key_the_setting_is_named() -> None:
    """H1: a 400 that says what the operator has to do."""
    none = NoSealing()
    for refused in (lambda: none.seal("t", "p", b"x"), lambda: none.unseal("t", "p", "x")):
        with pytest.raises(SealingUnavailable, match="HOLDFAST_SEALING__KEYS") as caught:
            refused()
        assert (caught.value.status, caught.value.code) == (400, "sealing_not_configured")


@pytest.mark.parametrize(
    "text", ["", "secret", "c2VjcmV0", "ä" * 44, b64encode(bytes(31)).decode()]
)
def test_what_is_no_key_is_not_repeated(text: str) -> None:
    """X4: the message says how to make one."""
    with pytest.raises(ValueError, match="openssl rand") as caught:
        parse_key(text)
    assert "secret" not in str(caught.value)
    assert parse_key(f" {b64encode(OLD).decode()}\n") == OLD
    assert len(OLD) == KEY_BYTES
