"""Content encodings of a model server's answer, decoded as it comes (rule E7).

We ask for none; a proxy before the model server may not care. What comes out of one piece is given in
pieces of a bounded size, so that the bounds of who reads it count before all of it is there (rule X5).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import brotli

from engine.errors import UpstreamFailed

_PIECE = 256 * 2**10

Decode = Callable[[bytes], Iterator[bytes]]
"""Gives what a piece of the body decodes to; raises UpstreamFailed."""


def answer_decoder(content_encoding: str) -> Decode:
    """Return what decodes a body with that header; raises UpstreamFailed for one that cannot be read."""
    applied = [name.strip() for name in content_encoding.lower().split(",")]
    named = [name for name in applied if name not in ("", "identity")]
    if not named:
        return _as_it_is
    decoder = _DECODERS.get(named[0])
    if decoder is None or len(named) > 1:
        raise UpstreamFailed(f"The model server's answer is encoded as {content_encoding}.")
    return _telling(decoder())


def _telling(decode: Decode) -> Decode:
    def told(data: bytes) -> Iterator[bytes]:
        try:
            yield from decode(data)
        except (zlib.error, brotli.error) as exc:
            raise UpstreamFailed("The model server's answer is encoded wrongly.") from exc

    return told


def _as_it_is(data: bytes) -> Iterator[bytes]:
    yield data


def _gzip() -> Decode:
    return _zlib(31)


def _deflate() -> Decode:
    return _zlib(15)


def _zlib(window: int) -> Decode:
    stream = zlib.decompressobj(window)

    def decode(data: bytes) -> Iterator[bytes]:
        while data:
            if piece := stream.decompress(data, _PIECE):
                yield piece
            data = stream.unconsumed_tail

    return decode


def _brotli() -> Decode:
    stream = brotli.Decompressor()

    def decode(data: bytes) -> Iterator[bytes]:
        if piece := stream.process(data, output_buffer_limit=_PIECE):
            yield piece
        while not stream.can_accept_more_data() and (
            piece := stream.process(b"", output_buffer_limit=_PIECE)
        ):
            yield piece

    return decode


_DECODERS: Mapping[str, Callable[[], Decode]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
}
