"""Content encodings of request bodies: decoded with a bound, so that a small body cannot become a huge one.

gzip, deflate, brotli and zstd (rule X5; some clients compress what they send).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import brotli
import zstandard

from engine.errors import InvalidRequest, TooLarge, UnsupportedMedia

# Two encodings on top of each other are legal, more are an attack.
_MOST_ENCODINGS = 2
# A gzip file may have several members; tools that make more than a few do not send requests.
_GZIP_MEMBERS = 16
_MOST_WINDOW = 2**27


def decode(body: bytes, content_encoding: str, limit: int) -> bytes:
    """Return the decoded body, at most `limit` bytes; raises TooLarge, UnsupportedMedia, InvalidRequest."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    applied = [name for name in names if name not in ("", "identity")]
    if len(applied) > _MOST_ENCODINGS:
        raise UnsupportedMedia(f"The body has too many content encodings: {content_encoding}.")
    for name in reversed(applied):
        decoder = _DECODERS.get(name)
        if decoder is None:
            raise UnsupportedMedia(
                f"Content encoding '{name}' is not known; use one of {', '.join(_DECODERS)}."
            )
        try:
            # One byte more than allowed tells a body that is too large from one that just fits.
            body = decoder(body, limit + 1)
        except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as exc:
            raise InvalidRequest(
                f"The body is not valid {name}: {exc}.", code="invalid_encoding"
            ) from exc
        if len(body) > limit:
            raise TooLarge(f"The decoded body is larger than {limit} bytes.")
    return body


def _zlib(window: int, most_members: int) -> Callable[[bytes, int], bytes]:
    def decoder(body: bytes, most: int) -> bytes:
        data = b""
        for _ in range(most_members):
            stream = zlib.decompressobj(window)
            data += stream.decompress(body, most - len(data))
            if len(data) == most:
                return data
            if not stream.eof:
                raise EOFError("it ends too early")
            body = stream.unused_data
            if not body:
                return data
        # Many empty members cost time and give nothing that a bound would see.
        raise EOFError("something follows its end")

    return decoder


def _brotli(body: bytes, most: int) -> bytes:
    stream = brotli.Decompressor()
    data: bytes = stream.process(body, output_buffer_limit=most)
    while len(data) < most and not stream.is_finished():
        more = stream.process(b"", output_buffer_limit=most - len(data))
        if not more:
            raise EOFError("it ends too early")
        data += more
    return data


def _zstd(body: bytes, most: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(body)
    data = reader.read(most)
    if len(data) < most:
        # The reader says nothing where the frame is cut. What comes out was seen to be within the bound.
        frame = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompressobj()
        frame.decompress(body)
        if not frame.eof:
            raise EOFError("it ends too early")
        if frame.unused_data:
            raise EOFError("something follows its end")
    return data


_DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": _zlib(31, _GZIP_MEMBERS),
    "x-gzip": _zlib(31, _GZIP_MEMBERS),
    "deflate": _zlib(15, 1),
    "br": _brotli,
    "zstd": _zstd,
}
