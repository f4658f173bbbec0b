"""Documents that are meant to do harm, and those that are damaged."""

from __future__ import annotations

import io
import random
import struct
import zipfile

from tests.support import documents
from tests.support.documents import docx_of, make, pdf_of, pdf_of_objects, word_paragraph, zipped

MIB = 1 << 20
_WORD = "word/document.xml"


def zip_bomb(size: int = 300 * MIB) -> bytes:
    """Return a Word document with a part that is a thousand times larger unpacked."""
    return _with_part(docx_of(word_paragraph("small")), "word/media/image1.xml", bytes(size))


def lying_zip_bomb() -> bytes:
    """Return a Word document whose text says that it is small, and is 64 MiB."""
    body = '<w:p xmlns:w="x">' + "a" * (64 * MIB) + "</w:p>"
    data = bytearray(docx_of(body))
    # The size unpacked, where the directory has it: 24 bytes into each entry.
    at = data.index(b"PK\x01\x02", data.rindex(b"PK\x03\x04"))
    while data[at : at + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        if data[at + 46 : at + 46 + name] == _WORD.encode():
            struct.pack_into("<I", data, at + 24, 1000)
        at += 46 + name + extra + comment
    return bytes(data)


def nested_zip_bomb() -> bytes:
    """Return zips within zips, each ten times the one within: nothing that is read."""
    data = bytes(10 * MIB)
    for _ in range(4):
        data = zipped((f"{number}.zip", data) for number in range(10))
    return data


def many_entries(count: int = 50_000) -> bytes:
    """Return an archive of so many empty files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(str(number)), b"")
    return packed.getvalue()


def billion_laughs(kind: str = "docx") -> bytes:
    """Return an Office document of entities that hold entities."""
    entities = '<!ENTITY l0 "lol">' + "".join(
        f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 12)
    )
    return _with_dtd(kind, entities, "&l11;")


def quadratic_blowup(kind: str = "docx") -> bytes:
    """Return an Office document that names one large entity very often."""
    return _with_dtd(kind, f'<!ENTITY a "{"a" * 100_000}">', "&a;" * 100_000)


def external_entity() -> bytes:
    """Return a Word document that asks for a file of ours."""
    return _with_dtd("docx", '<!ENTITY x SYSTEM "file:///etc/passwd">', "&x;")


def deep_xml(levels: int = 200_000) -> bytes:
    """Return a Word document of tables within tables."""
    return docx_of("<w:tbl><w:tr><w:tc>" * levels)


def deep_html(levels: int = 300_000) -> bytes:
    """Return a page of boxes within boxes."""
    return b"<html><body>" + b"<div>" * levels + b"deep"


def many_pages(count: int = 10_000) -> bytes:
    """Return a PDF of so many pages."""
    return pdf_of([[f"page {number}"] for number in range(count)])


def endless_pages() -> bytes:
    """Return a PDF whose pages are their own children."""
    return pdf_of_objects(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R 3 0 R 2 0 R] /Count 1000 /Parent 3 0 R >>",
            b"<< /Type /Pages /Kids [2 0 R] /Count 1000 /Parent 2 0 R >>",
        ]
    )


def endless_forms(width: int = 40) -> bytes:
    """Return a PDF of a page that draws forms, each of which draws the next ones many times."""
    levels = 12
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R "
        b"/Resources << /XObject << /X 5 0 R >> >> >>",
        b"<< /Length 5 >>\nstream\n/X Do\nendstream",
    ]
    for level in range(levels):
        drawn = b"/X Do " * width + b"BT /F 1 Tf (x) Tj ET"
        following = 5 + (level + 1) % levels
        objects.append(
            b"<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Length %d /Resources << /XObject "
            b"<< /X %d 0 R >> /Font << /F %b >> >> >>\nstream\n%b\nendstream"
            % (len(drawn), following, font, drawn)
        )
    return pdf_of_objects(objects)


def endless_references() -> bytes:
    """Return a PDF whose objects name each other in place of a value."""
    return pdf_of_objects(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /MediaBox 4 0 R /Contents 5 0 R /Resources 4 0 R >>",
            b"5 0 R",
            b"4 0 R",
        ]
    )


def encrypted_pdf() -> bytes:
    """Return a PDF that no password opens."""
    security = (
        b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -44 /O (%b) /U (%b) >> /ID [(a) (a)]"
        % (b"o" * 32, b"u" * 32)
    )
    pages = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>"]
    return pdf_of_objects(pages, security)


def encrypted_office() -> bytes:
    """Return the head of what Office makes of a document with a password."""
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2040)
    return head + "EncryptedPackage".encode("utf-16-le") + bytes(1000)


def old_office() -> bytes:
    """Return the head of a document of Office before 2007."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2040) + "WordDocument".encode("utf-16-le")


def scanned_pdf() -> bytes:
    """Return a PDF of pages without a word."""
    return pdf_of([["seen, not written"]] * 3, fonts=False)


def wide_sheet() -> bytes:
    """Return a workbook with one cell in its last column and row, and little text."""
    return documents.xlsx_of([("far", [["near", *[None] * 16_382, "far"]])])


def truncated(kind: str) -> bytes:
    """Return the first two thirds of a document."""
    data = make(kind, [f"Paragraph {number} of a document." for number in range(40)])
    return data[: len(data) * 2 // 3]


def scrambled(kind: str, seed: int) -> bytes:
    """Return a document with bytes of it replaced, behind the first by which its kind is known."""
    data = bytearray(make(kind, [f"Paragraph {number} of a document." for number in range(40)]))
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 40)):
        data[chance.randrange(8, len(data))] = chance.randrange(256)
    return bytes(data)


def _with_part(data: bytes, name: str, content: bytes) -> bytes:
    packed = io.BytesIO(data)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def _with_dtd(kind: str, entities: str, text: str) -> bytes:
    """Return an Office document whose XML has entities, and names them in a paragraph."""
    dtd = f"<!DOCTYPE x [{entities}]>"
    marked = make(kind, ["MARK"], title="MARK")
    with zipfile.ZipFile(io.BytesIO(marked)) as archive:
        parts = [(name, archive.read(name).decode()) for name in archive.namelist()]
    return zipped(
        (name, _declaring(xml, dtd).replace("MARK", text) if "MARK" in xml else xml)
        for name, xml in parts
    )


def _declaring(xml: str, dtd: str) -> str:
    head, end, rest = xml.partition("?>") if xml.startswith("<?xml") else ("", "", xml)
    return f"{head}{end}{dtd}{rest}"
