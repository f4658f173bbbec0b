"""`extproc.encodings`: bodies that clients compress, decoded with a bound (X5)."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest, TooLarge, UnsupportedMedia
from extproc.encodings import decode

LIMIT = 1000


def _zstd_streamed(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


def _gzip_members(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, two members": ("gzip", _gzip_members),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", lambda data: zstandard.compress(data)),
    "zstd without its size": ("zstd", _zstd_streamed),
}
every = pytest.mark.parametrize("how", ENCODERS)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.binary(max_size=LIMIT), how=st.sampled_from(list(ENCODERS)))
def test_what_was_encoded_is_decoded(data: bytes, how: str) -> None:
    """Of every size up to the limit."""
    name, encode = ENCODERS[how]
    assert decode(encode(data), name, LIMIT) == data


@every
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_body_that_just_fits_is_taken(how: str, size: int) -> None:
    """The limit is what may be there."""
    name, encode = ENCODERS[how]
    assert len(decode(encode(b"a" * size), name.upper(), LIMIT)) == size


@every
def test_a_body_that_is_too_large_when_decoded_is_a_413(how: str) -> None:
    """X5: by one byte."""
    name, encode = ENCODERS[how]
    with pytest.raises(TooLarge):
        decode(encode(b"a" * (LIMIT + 1)), name, LIMIT)


@every
def test_a_bomb_takes_no_memory(how: str) -> None:
    """X5: 50 MB in a few KB; the decoder stops at the bound."""
    name, encode = ENCODERS[how]
    bomb = encode(b"\0" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decode(bomb, name, 100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


@every
def test_a_truncated_body_is_a_400(how: str) -> None:
    """Wherever it was cut."""
    name, encode = ENCODERS[how]
    whole = encode(bytes(range(256)) * 3)
    cuts = {0, 1, 5, len(whole) // 3, len(whole) // 2 + 1, len(whole) - 1}
    if how == "gzip, two members":
        cuts.discard(len(encode(b"")) // 2)
    for cut in sorted(cuts):
        with pytest.raises(InvalidRequest) as caught:
            decode(whole[:cut], name, LIMIT)
        assert caught.value.code == "invalid_encoding"


@every
def test_garbage_is_a_400(how: str) -> None:
    """Also behind a valid body."""
    name, encode = ENCODERS[how]
    with pytest.raises(InvalidRequest):
        decode(b'{"model":"m"}', name, LIMIT)
    with pytest.raises(InvalidRequest):
        decode(encode(b"a" * 50) + b"garbage", name, LIMIT)


@pytest.mark.parametrize("encoding", ["", "identity", "Identity", " , identity"])
def test_no_encoding_leaves_the_body_as_it_is(encoding: str) -> None:
    """Named or not."""
    assert decode(b"{}", encoding, LIMIT) == b"{}"


def test_two_encodings_are_undone_from_the_outside_in() -> None:
    """As HTTP says; identity counts nothing."""
    body = brotli.compress(gzip.compress(b"{}"))
    assert decode(body, "gzip, identity, br", LIMIT) == b"{}"


@pytest.mark.parametrize("encoding", ["compress", "gzip, rot13", "br, br, br", "gzip2"])
def test_an_unknown_encoding_is_a_415(encoding: str) -> None:
    """More than two are an attack."""
    with pytest.raises(UnsupportedMedia):
        decode(b"x", encoding, LIMIT)


@pytest.mark.parametrize(
    ("encoding", "member"),
    [
        ("gzip", gzip.compress(b"")),
        ("deflate", zlib.compress(b"")),
        ("zstd", zstandard.ZstdCompressor().compress(b"")),
    ],
)
def test_many_empty_members_are_refused_at_once(encoding: str, member: bytes) -> None:
    """X5: they give no output that a bound would see, and each costs a copy of the rest."""
    with pytest.raises(InvalidRequest, match="follows its end"):
        decode(member * 100_000, encoding, 1000)
