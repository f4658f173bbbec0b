"""Documents of every format that is read, written by hand: small and real.

`make(kind, paragraphs)` returns a document that says these paragraphs, `name_of(kind)` what to call it. The
damaged and the malicious are in `bombs`.
"""

from __future__ import annotations

import csv
import html
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from xml.sax.saxutils import escape

import openpyxl

_SUFFIXES = {
    "pdf": "pdf",
    "docx": "docx",
    "pptx": "pptx",
    "xlsx": "xlsx",
    "html": "html",
    "markdown": "md",
    "csv": "csv",
    "tsv": "tsv",
    "json": "json",
    "code": "py",
    "text": "txt",
    "utf16": "txt",
}
KINDS = tuple(_SUFFIXES)

_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_OOXML = "application/vnd.openxmlformats-officedocument"
_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_P = "http://schemas.openxmlformats.org/presentationml/2006/main"
_A = "http://schemas.openxmlformats.org/drawingml/2006/main"


def make(kind: str, paragraphs: Sequence[str], *, title: str = "A document") -> bytes:
    """Return a document of a kind of `KINDS`; each paragraph is one there, or a row, slide or comment."""
    return _MAKERS[kind](paragraphs, title)


def name_of(kind: str, stem: str = "document") -> str:
    """Return a filename for a kind."""
    return f"{stem}.{_SUFFIXES[kind]}"


def zipped(parts: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Return a zip archive of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def docx_of(body: str, *, notes: str = "") -> bytes:
    """Return a Word document of the XML within its body, and of that within its footnotes."""
    document = (
        f'<?xml version="1.0"?><w:document xmlns:w="{_W}"><w:body>{body}</w:body></w:document>'
    )
    parts = [
        ("[Content_Types].xml", _types("/word/document.xml", "wordprocessingml.document.main")),
        ("_rels/.rels", _relations([("officeDocument", "word/document.xml")])),
        ("word/document.xml", document),
    ]
    if notes:
        parts += [
            ("word/_rels/document.xml.rels", _relations([("footnotes", "footnotes.xml")])),
            ("word/footnotes.xml", f'<w:footnotes xmlns:w="{_W}">{notes}</w:footnotes>'),
        ]
    return zipped(parts)


def word_paragraph(text: str, style: str = "") -> str:
    """Return the XML of a paragraph."""
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{properties}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def word_table(rows: Sequence[Sequence[str]]) -> str:
    """Return the XML of a table."""
    lines = (
        "<w:tr>" + "".join(f"<w:tc>{word_paragraph(cell)}</w:tc>" for cell in row) + "</w:tr>"
        for row in rows
    )
    return f"<w:tbl>{''.join(lines)}</w:tbl>"


def pptx_of(slides: Sequence[tuple[str, Sequence[str], str]]) -> bytes:
    """Return a presentation of slides: title, paragraphs, the speaker's notes."""
    numbers = range(1, len(slides) + 1)
    ids = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in numbers)
    presentation = (
        f'<p:presentation xmlns:p="{_P}" xmlns:r="{_OFFICE}"><p:sldIdLst>{ids}</p:sldIdLst>'
        "</p:presentation>"
    )
    # The last is the first in the archive: the order is the presentation's.
    named = [("slide", f"slides/slide{number}.xml") for number in numbers]
    parts: list[tuple[str, str]] = [
        (
            "[Content_Types].xml",
            _types("/ppt/presentation.xml", "presentationml.presentation.main"),
        ),
        ("_rels/.rels", _relations([("officeDocument", "ppt/presentation.xml")])),
        ("ppt/presentation.xml", presentation),
        ("ppt/_rels/presentation.xml.rels", _relations(named)),
    ]
    for number, (title, paragraphs, notes) in reversed(list(zip(numbers, slides, strict=True))):
        shapes = _shape("title", [title]) + _shape("body", paragraphs)
        parts.append((f"ppt/slides/slide{number}.xml", _shapes("sld", shapes)))
        if notes:
            relation = _relations([("notesSlide", f"../notesSlides/notesSlide{number}.xml")])
            parts.append((f"ppt/slides/_rels/slide{number}.xml.rels", relation))
            said = _shapes("notes", _shape("body", [notes]) + _shape("sldNum", [str(number)]))
            parts.append((f"ppt/notesSlides/notesSlide{number}.xml", said))
    return zipped(parts)


def xlsx_of(sheets: Iterable[tuple[str, Iterable[Iterable[object]]]]) -> bytes:
    """Return a workbook of sheets: name and rows."""
    book = openpyxl.Workbook(write_only=True)
    for name, rows in sheets:
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    packed = io.BytesIO()
    book.save(packed)
    return packed.getvalue()


def pdf_of(pages: Sequence[Sequence[str]], *, fonts: bool = True) -> bytes:
    """Return a PDF of pages of lines, in Latin-1; without `fonts` it has no text layer."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for index, lines in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * index} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(_pdf_stream(_drawn(lines) if fonts else b"0 0 612 792 re f"))
    return pdf_of_objects(objects)


def pdf_of_objects(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """Return a PDF file of numbered objects, the first of them its catalogue."""
    file, places = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    file += b"trailer\n<< /Size %d /Root 1 0 R %b >>\n" % (len(objects) + 1, trailer)
    return bytes(file + b"startxref\n%d\n%%%%EOF\n" % start)


def _pdf(paragraphs: Sequence[str], title: str) -> bytes:
    lines: list[str] = [title]
    for paragraph in paragraphs:
        lines += ["", *_wrapped(paragraph, 80)]
    return pdf_of([lines[at : at + 45] for at in range(0, len(lines), 45)])


def _docx(paragraphs: Sequence[str], title: str) -> bytes:
    return docx_of(word_paragraph(title, "Heading1") + "".join(map(word_paragraph, paragraphs)))


def _pptx(paragraphs: Sequence[str], title: str) -> bytes:
    return pptx_of([(title, [paragraph], "") for paragraph in paragraphs])


def _xlsx(paragraphs: Sequence[str], title: str) -> bytes:
    rows = [("number", "text"), *enumerate(paragraphs, 1)]
    return xlsx_of([(title[:31], rows)])


def _html(paragraphs: Sequence[str], title: str) -> bytes:
    body = "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs)
    named = html.escape(title)
    return (
        f"<!doctype html><html><head><meta charset=utf-8><title>{named}</title><style>p {{}}</style></head>"
        f"<body><h1>{named}</h1>{body}<script>unseen()</script></body></html>"
    ).encode()


def _markdown(paragraphs: Sequence[str], title: str) -> bytes:
    return "\n\n".join([f"# {title}", *paragraphs]).encode()


def _csv(paragraphs: Sequence[str], _title: str, delimiter: str = ",") -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, delimiter=delimiter)
    rows.writerow(["number", "text"])
    rows.writerows(enumerate(paragraphs, 1))
    return text.getvalue().encode()


def _tsv(paragraphs: Sequence[str], title: str) -> bytes:
    return _csv(paragraphs, title, "\t")


def _json(paragraphs: Sequence[str], title: str) -> bytes:
    return json.dumps(
        {"title": title, "paragraphs": paragraphs}, ensure_ascii=False, indent=1
    ).encode()


def _code(paragraphs: Sequence[str], title: str) -> bytes:
    lines = [f'"""{title}"""', ""]
    for number, paragraph in enumerate(paragraphs):
        lines += [
            f"def part_{number}() -> str:",
            f"    # {paragraph}",
            f"    return {paragraph!r}",
            "",
        ]
    return "\n".join(lines).encode()


def _text(paragraphs: Sequence[str], title: str) -> bytes:
    return "\n\n".join([title, *paragraphs]).encode()


def _utf16(paragraphs: Sequence[str], title: str) -> bytes:
    return _text(paragraphs, title).decode().encode("utf-16")


_MAKERS: dict[str, Callable[[Sequence[str], str], bytes]] = {
    "pdf": _pdf,
    "docx": _docx,
    "pptx": _pptx,
    "xlsx": _xlsx,
    "html": _html,
    "markdown": _markdown,
    "csv": _csv,
    "tsv": _tsv,
    "json": _json,
    "code": _code,
    "text": _text,
    "utf16": _utf16,
}


def _types(part: str, content: str) -> str:
    return (
        f'<Types xmlns="{_TYPES}"><Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="{part}" ContentType="{_OOXML}.{content}+xml"/></Types>'
    )


def _relations(targets: Sequence[tuple[str, str]]) -> str:
    each = "".join(
        f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return f'<Relationships xmlns="{_RELATIONS}">{each}</Relationships>'


def _shapes(root: str, shapes: str) -> str:
    tree = f"<p:cSld><p:spTree>{shapes}</p:spTree></p:cSld>"
    return f'<p:{root} xmlns:p="{_P}" xmlns:a="{_A}">{tree}</p:{root}>'


def _shape(kind: str, paragraphs: Sequence[str]) -> str:
    lines = "".join(f"<a:p><a:r><a:t>{escape(line)}</a:t></a:r></a:p>" for line in paragraphs)
    return (
        f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>'
        f"<p:txBody>{lines}</p:txBody></p:sp>"
    )


def _pdf_stream(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(packed), packed)


def _drawn(lines: Sequence[str]) -> bytes:
    drawn = [b"BT /F1 11 Tf 50 742 Td 15 TL"]
    for line in lines:
        text = line.encode("cp1252", "replace")
        for special in (b"\\", b"(", b")"):
            text = text.replace(special, b"\\" + special)
        drawn.append(b"(%b) Tj T*" % text)
    return b"\n".join([*drawn, b"ET"])


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
