"""Office documents as packages: a zip archive of XML parts that name each other (OPC)."""

from __future__ import annotations

import posixpath
import zipfile
from typing import BinaryIO, Literal, Self

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from extproc.extraction.bounds import MIB, Bounds, Unreadable, unsupported

_READ_BYTES = 64 << 10
# Below it any ratio is harmless.
_SMALL = 16 * MIB
_ENCRYPTED = 0x1

_KINDS: tuple[tuple[str, Literal["docx", "pptx", "xlsx"]], ...] = (
    ("wordprocessingml", "docx"),
    ("presentationml", "pptx"),
    ("spreadsheetml", "xlsx"),
)


class Sink:
    """What a part's parser calls; this one takes no notice."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""

    def end(self, tag: str) -> None:
        """End an element."""

    def data(self, text: str) -> None:
        """Take a piece of text, which may be any part of a run."""

    def close(self) -> None:
        """End the part."""


class Package:
    """An archive within bounds; a context manager that closes it. Raises Unreadable throughout."""

    def __init__(self, file: BinaryIO, bounds: Bounds) -> None:
        try:
            self._archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise Unreadable(
                "The file is a zip archive or an Office document that is damaged."
            ) from error
        self._bounds = bounds
        self._check(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def names(self) -> list[str]:
        """Return the names of all parts."""
        return self._archive.namelist()

    def kind(self) -> Literal["docx", "pptx", "xlsx"] | None:
        """Return which Office document it is; None for any other archive."""
        if "[Content_Types].xml" not in self.names():
            return None
        types = _ContentTypes()
        self.feed("[Content_Types].xml", types)
        main = "/" + self.main_part()
        named = types.overrides.get(main, "")
        return next((kind for family, kind in _KINDS if family in named), None)

    def described(self) -> str:
        """Return what an archive is that is no Office document."""
        names = set(self.names())
        if "mimetype" in names and "META-INF/container.xml" in names:
            return "an e-book"
        if "mimetype" in names and "content.xml" in names:
            return "an OpenDocument file; it can be saved as DOCX, PPTX or XLSX"
        return "an archive; its files can be sent one by one"

    def main_part(self) -> str:
        """Return the name of the part that is the document itself; "" if none is named."""
        related = self.related("")
        return next((part for kind, part in related.values() if kind == "officeDocument"), "")

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """Return what a part names by id: the last word of the kind, and the other part's name."""
        folder, name = posixpath.split(part)
        relations = posixpath.join(folder, "_rels", f"{name}.rels")
        if relations not in self.names():
            return {}
        sink = _Relations(folder)
        self.feed(relations, sink)
        return sink.found

    def feed(self, part: str, sink: Sink) -> None:
        """Parse a part, without building a tree of it."""
        parser = DefusedXMLParser(target=sink, forbid_dtd=True)
        try:
            with self._archive.open(part) as stream:
                while piece := stream.read(_READ_BYTES):
                    parser.feed(piece)
                parser.close()
        except DefusedXmlException as error:
            raise with_entities() from error
        except (KeyError, SyntaxError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
            raise Unreadable(
                "The Office document is damaged: a part of it cannot be read."
            ) from error
        except (NotImplementedError, RuntimeError) as error:
            raise Unreadable("The document is packed in a way that is not read.") from error

    def _check(self, file: BinaryIO) -> None:
        entries, bounds = self._archive.infolist(), self._bounds
        if len(entries) > bounds.entries:
            raise Unreadable(
                f"The document is an archive of {len(entries)} files; the limit is {bounds.entries}."
            )
        if any(entry.flag_bits & _ENCRYPTED for entry in entries):
            unsupported("The document is protected by a password; it can be saved without.")
        # No more than an entry says of itself is ever unpacked of it (zipfile sees to that).
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > bounds.unpacked_bytes:
            raise Unreadable(
                f"The document has {unpacked} bytes unpacked; the limit is {bounds.unpacked_bytes}."
            )
        packed = file.seek(0, 2)
        if unpacked > max(_SMALL, packed * bounds.ratio):
            raise Unreadable(
                f"The document is {unpacked // max(packed, 1)} times larger unpacked; the limit is "
                f"{bounds.ratio} times."
            )


def with_entities() -> Unreadable:
    """Return the refusal of a document whose XML declares entities."""
    return Unreadable(
        "The document declares XML entities or a DTD, which no Office document needs."
    )


def local(tag: str) -> str:
    """Return the name of an element or attribute without its namespace."""
    return tag.rpartition("}")[2]


class _ContentTypes(Sink):
    def __init__(self) -> None:
        self.overrides: dict[str, str] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if local(tag) == "Override":
            self.overrides[attributes.get("PartName", "")] = attributes.get("ContentType", "")


class _Relations(Sink):
    def __init__(self, folder: str) -> None:
        self.found: dict[str, tuple[str, str]] = {}
        self._folder = folder

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if local(tag) != "Relationship" or attributes.get("TargetMode") == "External":
            return
        target = attributes.get("Target", "")
        path = target if target.startswith("/") else posixpath.join("/", self._folder, target)
        kind = attributes.get("Type", "").rpartition("/")[2]
        self.found[attributes.get("Id", "")] = (kind, posixpath.normpath(path).lstrip("/"))
