"""PDF: the text layer, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pypdfium2
import pypdfium2.raw as pdfium

from extproc.extraction.bounds import Bounds, Unreadable, unsupported


def read(file: BinaryIO, _filename: str, bounds: Bounds) -> Iterator[str]:
    """Yield the text of each page; raises Unreadable where there is none."""
    document = _opened(file)
    pages = len(document)
    if pages > bounds.pages:
        raise Unreadable(f"The PDF has {pages} pages; the limit is {bounds.pages}.")
    found = False
    for index in range(pages):
        text = _page(document, index)
        if text:
            found = True
            yield f"{text}\n\n"
    if not found:
        unsupported(
            "The PDF has no text layer: its pages are images, as a scanner makes them. Text has to be "
            "recognised in it first (OCR)."
        )


def _opened(file: BinaryIO) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            unsupported("The PDF is protected by a password; it can be saved without.")
        raise Unreadable("The PDF is damaged: it cannot be opened.") from error


def _page(document: pypdfium2.PdfDocument, index: int) -> str:
    try:
        page = document[index]
    except pypdfium2.PdfiumError:
        # One that is damaged does not take the others with it.
        return ""
    words = page.get_textpage()
    text = str(words.get_text_bounded())
    words.close()
    page.close()
    return text.strip()
