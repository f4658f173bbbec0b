"""Excel: each sheet under its name, a line for each row, the first of them its header."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import BinaryIO

import openpyxl
from defusedxml.common import DefusedXmlException

from extproc.extraction.bounds import Bounds, Unreadable
from extproc.extraction.opc import Package, with_entities

# In wider rows empty cells are left out: one cell in the last column would make 16,384 of them.
_MOST_COLUMNS = 256


def read(file: BinaryIO, _filename: str, bounds: Bounds) -> Iterator[str]:
    """Yield the rows of each sheet, values as they were last computed."""
    with Package(file, bounds):
        pass
    file.seek(0)
    try:
        yield from _sheets(file, bounds)
    except ValueError as error:
        if isinstance(error, DefusedXmlException) or isinstance(
            error.__cause__, DefusedXmlException
        ):
            raise with_entities() from error
        raise


def _sheets(file: BinaryIO, bounds: Bounds) -> Iterator[str]:
    # As a stream of rows. Its XML is defusedxml's, which refuses entities.
    book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    if len(book.worksheets) > bounds.pages:
        raise Unreadable(
            f"The workbook has {len(book.worksheets)} sheets; the limit is {bounds.pages}."
        )
    for sheet in book.worksheets:
        # Files say what they like of their size.
        sheet.reset_dimensions()
        named = False
        for row in sheet.iter_rows(values_only=True):
            line = " | ".join(map(_shown, _trimmed(row)))
            if line:
                if not named:
                    yield f"Sheet: {sheet.title}\n"
                    named = True
                yield f"{line}\n"
        if named:
            yield "\n"


def _trimmed(row: tuple[object, ...]) -> tuple[object, ...]:
    last = next((at for at in range(len(row), 0, -1) if row[at - 1] is not None), 0)
    # Far out, columns stand for themselves no longer.
    return row[:last] if last <= _MOST_COLUMNS else tuple(cell for cell in row if cell is not None)


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and not (value.hour or value.minute or value.second):
        return value.date().isoformat()
    return str(value).replace("\n", " ")
