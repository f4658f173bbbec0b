"""What the API says of files and uploads."""

from __future__ import annotations

import json

import pytest

from engine.api.files import (
    content_headers,
    file_object,
    parse_file_list,
    parse_new_upload,
    parse_range,
    upload_object,
)
from engine.errors import InvalidRequest, RangeRefused
from engine.ports import StoredFile, StoredUpload

FILE = StoredFile(
    id="file-1", created_at=1, expires_at=None, purpose="batch", filename='a";\r\nä.txt', size=10
)
UPLOAD = StoredUpload(
    id="upload_1",
    created_at=1,
    expires_at=2,
    status="completed",
    size=10,
    purpose="batch",
    filename="f",
    media_type="text/plain",
    keep_seconds=None,
    file_id="file-1",
)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=9-9", (9, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-40", (0, 10)),
        ("bytes=3-400", (3, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=0-1,2-3", None),
        ("items=0-1", None),
        ("bytes=0-" + "9" * 40, None),
    ],
)
def test_ranges(header: str | None, wanted: tuple[int, int] | None) -> None:
    """What is no range of ours gives the whole, as HTTP has it."""
    assert parse_range(header, 10) == wanted


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_a_range_behind_the_end_is_refused(header: str, size: int) -> None:
    """With the size, which the answer tells."""
    with pytest.raises(RangeRefused) as refused:
        parse_range(header, size)
    assert (refused.value.status, refused.value.size) == (416, size)


def test_a_name_cannot_break_out_of_its_header() -> None:
    """X4: nor be taken for a page by a browser."""
    headers = content_headers(FILE, None)
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''a%22%3B%0D%0A%C3%A4.txt"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-length"] == "10"


def test_objects() -> None:
    """Every field of the API's, and the file within its upload."""
    assert json.loads(upload_object(UPLOAD, FILE))["file"] == json.loads(file_object(FILE))
    assert json.loads(upload_object(UPLOAD))["file"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=10001", "limit"), ("order=x", "order"), ("before=x", "before"),
     ("after=", "after")],
)  # fmt: skip
def test_wrong_lists_are_refused(query: str, param: str) -> None:
    """H2."""
    with pytest.raises(InvalidRequest) as refused:
        parse_file_list(query)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": None}, "bytes"),
        ({"bytes": 0}, "bytes"),
        ({"bytes": 101}, "bytes"),
        ({"purpose": "x"}, "purpose"),
        ({"filename": ""}, "filename"),
        ({"mime_type": "a\nb"}, "mime_type"),
        ({"x": 1}, "x"),
        ({"expires_after": {"anchor": "x", "seconds": 3600}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds"),
    ],
)
def test_wrong_uploads_are_refused(change: dict[str, object], param: str) -> None:
    """H1."""
    good = {"bytes": 1, "filename": "f", "mime_type": "text/plain", "purpose": "batch"}
    body = json.dumps({**good, **change}).encode()
    with pytest.raises(InvalidRequest) as refused:
        parse_new_upload(body, "upload_1", most=100, open_seconds=1)
    assert refused.value.param == param
