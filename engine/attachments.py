"""Fetches the files that input items name, within bounds (rules X1, X3, X5).

What the model is sent of them is kept with the item, so that a later turn, or a run after a crash, sends the
same bytes whatever has become of the file (rule M9).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from urllib.parse import unquote

from engine.allowance import Allowance
from engine.api import checks
from engine.api.attachments import Part, as_image, as_text, decoded, places_of_files, plain_text
from engine.api.items import IMAGE_LIMIT, WithFiles, stored_item
from engine.errors import ExtractionFailed, ExtractionRefused, InvalidRequest, NotFound
from engine.files import Files
from engine.limits import Limits
from engine.ports import StoredItem
from engine.ports.extraction import Chunking, Extraction

FetchUrl = Callable[[str, int, str], Awaitable[bytes]]
"""Returns at most so many bytes behind a URL; raises InvalidRequest with the `param` given last."""


async def nothing_fetched(_url: str, _most: int, param: str) -> bytes:
    """Refuse every URL: `FetchUrl` where none is reached."""
    raise checks.unsupported(param, "URLs are not fetched here.")


class NothingExtracted:
    """Refuses every document: `Extraction` where none is read but plain text."""

    async def text(self, filename: str, pieces: AsyncIterator[bytes], *, most: int) -> str:
        """Refuse."""
        raise _unreadable()

    async def chunks(
        self, filename: str, pieces: AsyncIterator[bytes], chunking: Chunking
    ) -> Sequence[str]:
        """Refuse."""
        raise _unreadable()


_QUERY = re.compile(r"[?#]")


class Attachments:
    """Reads files for one worker."""

    def __init__(
        self, files: Files, fetch: FetchUrl, extraction: Extraction, limits: Limits
    ) -> None:
        self._files = files
        self._fetch = fetch
        self._extraction = extraction
        self._limits = limits

    async def attach(self, tenant: str, entry: WithFiles, allowance: Allowance) -> StoredItem:
        """Return an item whose files were read, within what is left of its request's allowance.

        Raises InvalidRequest, ExtractionRefused among it, StorageUnavailable, ExtractionFailed.
        """
        sent = dict(entry.item)
        for name, index, part in list(places_of_files(sent)):
            param = f"{entry.param}.{name}[{index}]"
            async with allowance.a_file(param):
                read, size = await self._read(tenant, part, param)
            allowance.take(size, param, code="file_too_large")
            parts = list(_list(sent[name]))
            parts[index] = read
            sent[name] = parts
        return stored_item(entry.item, entry.kind, sent)

    async def _read(self, tenant: str, part: Part, param: str) -> tuple[dict[str, object], int]:
        """Return what a model is sent for a part, and how many bytes it took of the file."""
        if part["type"] == "input_image":
            param = f"{param}.file_id"
            data, _ = await self._kept(tenant, str(part["file_id"]), IMAGE_LIMIT, param)
            return as_image(data, part.get("detail"), param), len(data)
        data, name, param = await self._file(tenant, part, param)
        name = str(part.get("filename") or name)
        text = plain_text(data)
        if text is not None:
            return as_text(text, name), len(data)
        text = await self._extracted(data, name, param)
        return as_text(text, name), len(text.encode())

    async def _extracted(self, data: bytes, name: str, param: str) -> str:
        """Return the text of a document; every error says which one, and where it is named."""
        most = self._limits.input_text_bytes
        try:
            return await self._extraction.text(name, _whole(data), most=most)
        except ExtractionRefused as error:
            message = f"The file '{name}' cannot be read. {error.message}"
            raise ExtractionRefused(message, param=param, code=error.code) from error
        except ExtractionFailed as error:
            raise ExtractionFailed(error.message, param=param) from error

    async def _file(self, tenant: str, part: Part, param: str) -> tuple[bytes, str, str]:
        """Return bytes and name of a file, and where in the request it is named."""
        most = self._limits.input_file_bytes
        if "file_id" in part:
            param = f"{param}.file_id"
            return *await self._kept(tenant, str(part["file_id"]), most, param), param
        if "file_url" in part:
            param, url = f"{param}.file_url", str(part["file_url"])
            data = await self._fetch(url, most, param)
            return data, _name_in(url) or "file", param
        param = f"{param}.file_data"
        data = decoded(str(part["file_data"]), param)
        if len(data) > most:
            raise _too_large(param, most)
        return data, "file", param

    async def _kept(self, tenant: str, wanted: str, most: int, param: str) -> tuple[bytes, str]:
        try:
            file, pieces = await self._files.open(tenant, wanted)
        except NotFound as error:
            raise InvalidRequest(error.message, param=param, code="file_not_found") from error
        if file.size > most:
            raise _too_large(param, most)
        return await _joined(pieces), file.filename


async def _joined(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _name_in(url: str) -> str:
    """Return the last part of a URL's path; of what is no URL too, which `urlsplit` raises for."""
    address = _QUERY.split(url, maxsplit=1)[0].partition("://")[2]
    return unquote(address.partition("/")[2]).rpartition("/")[2]


def _unreadable() -> ExtractionRefused:
    return ExtractionRefused(
        "Files in requests must be text in UTF-8 here (plain text, Markdown, code, JSON, CSV …).",
        code="unsupported_file",
    )


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _too_large(param: str, most: int) -> InvalidRequest:
    return InvalidRequest(
        f"Files in a request can have {most} bytes; this is more.",
        param=param,
        code="file_too_large",
    )
