"""What is read of each format, in this process: bounds and children are another file's."""

from __future__ import annotations

import datetime
import io

import pytest

from extproc.extraction.bounds import Bounds, Unreadable
from extproc.extraction.reading import read_document
from tests.support import bombs
from tests.support.documents import (
    KINDS,
    docx_of,
    make,
    name_of,
    pdf_of,
    pptx_of,
    word_paragraph,
    word_table,
    xlsx_of,
    zipped,
)

BOUNDS = Bounds(
    text_bytes=100_000,
    pages=100,
    entries=100,
    unpacked_bytes=64 << 20,
    ratio=100,
    seconds=5.0,
    wall_seconds=50.0,
    memory_bytes=256 << 20,
)
PARAGRAPHS = ["The first paragraph: café & <co>.", "The second one says 42 things."]


def read(data: bytes, name: str = "document", bounds: Bounds = BOUNDS) -> str:
    """Return the text of a document."""
    return read_document(io.BytesIO(data), name, bounds)[0]


def refusal(data: bytes, name: str = "document", bounds: Bounds = BOUNDS) -> tuple[str, str]:
    """Return code and message of the refusal of a document."""
    with pytest.raises(Unreadable) as refused:
        read(data, name, bounds)
    return refused.value.code, refused.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_read(kind: str) -> None:
    """Each paragraph is there, in order, and nothing of the markup."""
    text = read(make(kind, PARAGRAPHS), name_of(kind))
    places = [text.index(paragraph) for paragraph in PARAGRAPHS]
    assert places == sorted(places)
    if kind != "code":
        assert "unseen" not in text
        assert "</" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_what_its_content_says(kind: str) -> None:
    """A name that lies, and none at all, change nothing."""
    data = make(kind, PARAGRAPHS)
    assert read(data, "photo.png") == read(data, "") == read(data, name_of(kind))


def test_word_has_headings_lists_tables_and_notes() -> None:
    """Headings and lists as Markdown has them, a line for each row; what is there twice is read once."""
    listed = "<w:p><w:pPr><w:numPr/></w:pPr><w:r><w:t>item</w:t></w:r></w:p>"
    broken = "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>"
    twice = (
        '<w:p><w:r><mc:AlternateContent xmlns:mc="x"><mc:Choice><w:t>once</w:t></mc:Choice>'
        "<mc:Fallback><w:p><w:t>once</w:t></w:p></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    deleted = "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    body = (
        word_paragraph("Report", "Title")
        + word_paragraph("Part", "Heading2")
        + listed
        + broken
        + word_table([["Name", "Age"], ["Ada", "36"], ["", ""]])
        + twice
        + deleted
    )
    text = read(docx_of(body, notes=f"<w:footnote>{word_paragraph('a note')}</w:footnote>"))
    assert text == (
        "# Report\n\n## Part\n\n- item\na\tb\nc\n\nName | Age\nAda | 36\n\nonce\n\na note\n\n"
    )


def test_slides_come_in_their_order_with_numbers_titles_and_notes() -> None:
    """The order is the presentation's, not the archive's; a slide's own number is no text."""
    text = read(pptx_of([("One", ["first", "point"], ""), ("Two", ["second"], "say this")]))
    assert text == (
        "## Slide 1: One\n\nfirst\npoint\n\n## Slide 2: Two\n\nsecond\n\nNotes:\nsay this\n\n"
    )


def test_sheets_have_names_headers_and_rows() -> None:
    """Empty rows and sheets are left out; numbers and dates read as people write them."""
    day = datetime.datetime(2026, 3, 1)
    rows: list[list[object]] = [
        ["day", "sum", "note"],
        [day, 3.0, None],
        [],
        [None, 2.5, "two\nlines"],
    ]
    text = read(xlsx_of([("March", rows), ("nothing", [[]]), ("Late", [["x"]])]))
    assert text == (
        "Sheet: March\nday | sum | note\n2026-03-01 | 3\n | 2.5 | two lines\n\nSheet: Late\nx\n\n"
    )


def test_a_cell_far_out_is_no_wide_row() -> None:
    """X5: sixteen thousand empty cells are no text."""
    assert read(bombs.wide_sheet()) == "Sheet: far\nnear | far\n\n"


def test_a_page_is_read_as_it_is_seen() -> None:
    """Without script, style and comments; headings, lists, tables and preformatted text keep their form."""
    page = (
        "<!-- no --><!doctype html><title>T</title><style>a{}</style><h2>Head <b>ing</b></h2>"
        "<p>one  two<br>three</p><ul><li>a<li>b</ul><table><tr><th>H<th>I</tr><tr><td><p>x</p>"
        "<td>y<div>z</div></table><pre>  code\n    more</pre><script>bad()</script>"
        "<template>no</template>tail"
    )
    assert read(page.encode(), "a.html") == (
        "# T\n\n## Head ing\n\none two\nthree\n\n- a\n- b\n\nH | I\nx | y z\n\n  code\n    more\n\ntail"
    )


def test_pages_of_a_pdf_are_paragraphs() -> None:
    """One after the other."""
    assert read(pdf_of([["a (b)", "c"], [], ["d"]])) == "a (b)\nc\n\nd\n\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_in_the_encodings_that_tell_themselves(encoding: str) -> None:
    """UTF-8 with and without its mark, and what a byte order mark says; lines end as they do here."""
    assert read("Grüße\r\n日本\r".encode(encoding)) == "Grüße\n日本\n"


def test_a_declared_encoding_is_believed() -> None:
    """HTML and XML tell theirs; one that does not hold is passed over."""
    page = '<html><meta http-equiv=a content="text/html; charset=iso-8859-1"><p>Grüße'
    assert read(page.encode("latin-1")) == "Grüße"
    assert read(page.encode("utf-8").replace(b"iso-8859-1", b"us-ascii-x")) == "Grüße"
    xml = '<?xml version="1.0" encoding="shift_jis"?><a>日本</a>'
    assert "日本" in read(xml.encode("shift_jis"))


def test_other_encodings_are_refused() -> None:
    """Nothing is guessed: the message says what to do."""
    code, message = refusal("Grüße aus dem Süden".encode("latin-1"), "a.txt")
    assert code == "invalid_file"
    assert "UTF-8" in message
    late = b"good " * 19_000 + b"\xff"
    code, message = refusal(late, "a.txt")
    assert (code, "throughout" in message) == ("invalid_file", True)


def test_no_text_has_what_postgres_cannot_keep() -> None:
    """NUL, control characters and lone surrogates do not leave here; soft hyphens join their words."""
    name = "a\x01b"
    assert read(f"<p>{name}&#0;&#xd800;c".encode(), "a.html").isprintable()
    assert read(b"page\x0cbreak") == "page\nbreak"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x89PNG\r\n\x1a\n\0", "image"),
        (b"\xff\xd8\xff\xe0\0", "image"),
        (b"RIFF\0\0\0\0WEBP", "image"),
        (b"RIFF\0\0\0\0WAVE", "audio"),
        (b"\0\0\0\x18ftypmp42", "audio"),
        (b"ID3\x03\0", "audio"),
        (b"\x1f\x8b\x08\0", "archive"),
        (b"7z\xbc\xaf\x27\x1c\0", "archive"),
        (zipped([("a.txt", "a")]), "archive"),
        (zipped([("mimetype", "x"), ("content.xml", "<a/>")]), "OpenDocument"),
        (zipped([("mimetype", "x"), ("META-INF/container.xml", "<a/>")]), "e-book"),
        (b"\x7fELF\x02\x01\x01\0", "program"),
        (b"MZ\x90\0", "program"),
        (b"SQLite format 3\0", "database"),
        (b"{\\rtf1 hello}", "RTF"),
        (b"%!PS-Adobe", "PostScript"),
        (b"\0\x9f\x01\x02", "not known"),
        (bombs.nested_zip_bomb(), "archive"),
        (bombs.encrypted_pdf(), "password"),
        (bombs.encrypted_office(), "password"),
        (bombs.old_office(), "before 2007"),
        (bombs.scanned_pdf(), "no text layer"),
    ],
)
def test_what_is_no_document_is_refused_by_its_name(data: bytes, word: str) -> None:
    """H1: `unsupported_file`, whatever the file is called, and the message says what it is."""
    code, message = refusal(data, "letter.txt")
    assert (code, word in message) == ("unsupported_file", True), message


@pytest.mark.parametrize("text", ["MZ is no program", "BM", "GIF8 formats", "PAR1", "ID3 tags"])
def test_text_that_begins_like_something_else_is_text(text: str) -> None:
    """A magic word alone makes no image of a text."""
    assert read(text.encode()) == text


def test_nothing_is_refused_as_nothing() -> None:
    """An empty document, and one of spaces."""
    assert refusal(b"", "a.pdf") == ("invalid_file", "The document is empty.")
    assert refusal(b" \n ") == ("invalid_file", "The document has no text.")
    assert refusal(docx_of(word_paragraph(" ")))[0] == "invalid_file"


@pytest.mark.parametrize("kind", ["pdf", "docx", "pptx", "xlsx"])
def test_half_a_document_is_refused(kind: str) -> None:
    """As damaged, and not half read."""
    code, message = refusal(bombs.truncated(kind), name_of(kind))
    assert code == "invalid_file"
    assert "damaged" in message


@pytest.mark.parametrize(
    "data",
    [bombs.billion_laughs(kind) for kind in ("docx", "pptx", "xlsx")]
    + [bombs.quadratic_blowup(kind) for kind in ("docx", "pptx", "xlsx")]
    + [bombs.external_entity()],
)
def test_entities_are_refused(data: bytes) -> None:
    """X3, X5: those that grow, and those that fetch."""
    code, message = refusal(data)
    assert code == "invalid_file"
    assert "entities" in message


@pytest.mark.parametrize(
    ("data", "bound"),
    [
        (bombs.zip_bomb(), "bytes unpacked; the limit is 67108864"),
        (bombs.zip_bomb(60 << 20), "larger unpacked; the limit is 100 times"),
        (bombs.many_entries(101), "101 files; the limit is 100"),
        (bombs.many_pages(101), "101 pages; the limit is 100"),
        (pptx_of([("", ["x"], "")] * 101), "files; the limit is 100"),
        (xlsx_of([(str(number), [[1]]) for number in range(101)]), "files; the limit is 100"),
        (b"a" * 100_005, "limit of 100000 bytes"),
        (("ab" * 50_002).encode("utf-16"), "limit of 100000 bytes"),
        (pdf_of([["word " * 300] * 40] * 99), "limit of 100000 bytes"),
        (docx_of(word_paragraph("word " * 30_000)), "limit of 100000 bytes"),
        (b"<html>" + b"<p>word " * 30_000, "limit of 100000 bytes"),
    ],
)
def test_a_bound_is_named(data: bytes, bound: str) -> None:
    """X5: pages, files, sizes, ratio and text, each says what it is."""
    code, message = refusal(data)
    assert code == "invalid_file"
    assert bound in message


def test_an_archive_that_lies_about_its_size_is_damaged() -> None:
    """X5: no more is unpacked than it says."""
    assert refusal(bombs.lying_zip_bomb())[0] == "invalid_file"
