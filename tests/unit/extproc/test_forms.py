"""Forms read as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.errors import InvalidRequest, UnsupportedMedia
from extproc.forms import MultipartForm, read_form
from extproc.messages import Head

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="p\xc3\xa4ss.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
    b"\r\n--bb\r\n-\x00\xff\r\n--b--\r\n"
)
CONTENT = b"\r\n--bb\r\n-\x00\xff"


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


def a_head(media_type: str | None, *, ended: bool = False, **headers: str) -> Head:
    given = {**headers} if media_type is None else {"content-type": media_type, **headers}
    return Head("POST", "/v1/files", {k.replace("_", "-"): v for k, v in given.items()}, ended)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
async def test_parts_are_whole_in_any_chunking(size: int) -> None:
    """E6: what looks like a boundary and is none is content."""
    cut = [BODY[at : at + size] for at in range(0, len(BODY), size)]
    found = []
    async for part in MultipartForm(b"b", pieces(*cut)).parts():
        content = b"".join([piece async for piece in part.pieces()])
        found.append((part.name, part.filename, content))
    assert found == [("purpose", None, b"vision"), ("file", "päss.bin", CONTENT)]


async def test_what_is_not_read_is_skipped() -> None:
    """A part is over when the next is asked for."""
    names = [part.name async for part in MultipartForm(b"b", pieces(BODY)).parts()]
    assert names == ["purpose", "file"]


async def test_a_form_asks_for_no_more_than_it_needs() -> None:
    """E6: what its reader has not taken is not fetched."""
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        for at in range(0, len(BODY), 16):
            taken += 1
            yield BODY[at : at + 16]

    parts = MultipartForm(b"b", counted()).parts()
    await anext(parts)
    assert taken < 6


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        BODY[:-20],
        b"--b\r\n\r\nno name\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 17 + b"--b--\r\n",
        b"--b\r\nx: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"x: y\r\n" * 1000 + b"\r\nx\r\n--b--\r\n",
    ],
)
async def test_a_broken_form_is_refused(body: bytes) -> None:
    """H1, X5: also one without bounds."""

    async def read() -> None:
        async for part in MultipartForm(b"b", pieces(body)).parts():
            async for _ in part.pieces():
                pass

    with pytest.raises(InvalidRequest) as refused:
        await read()
    assert refused.value.code == "invalid_form"


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (a_head("application/json"), UnsupportedMedia),
        (a_head(None), UnsupportedMedia),
        (a_head("multipart/form-data\ufffd"), UnsupportedMedia),
        (a_head("multipart/form-data; boundary=\u20ac"), UnsupportedMedia),
        (a_head("multipart/form-data; b\ufffd=c; boundary=b"), UnsupportedMedia),
        (a_head("multipart/form-data; boundary=b", content_encoding="gzip"), UnsupportedMedia),
        (a_head("multipart/form-data"), InvalidRequest),
        (a_head("multipart/form-data; boundary=b", ended=True), InvalidRequest),
        (a_head("multipart/form-data; boundary=" + "b" * 9999), InvalidRequest),
    ],
)
def test_what_is_no_form_is_refused(head: Head, error: type[Exception]) -> None:
    """H1: before a byte of it is read."""
    with pytest.raises(error):
        read_form(head, pieces(BODY))
