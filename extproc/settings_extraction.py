"""The settings of reading documents: what one may be, and what reading it may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from extproc.settings_section import Seconds, Section

_LargeBytes = Annotated[int, Field(ge=1024, le=1 << 40)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Extraction(Section):
    """Documents that are read: PDF, Office, HTML and text. Each is read in a process of its own, within these
    bounds."""

    document_bytes: _LargeBytes = 512 << 20
    """Largest document."""

    text_bytes: Annotated[int, Field(ge=1024, le=256 << 20)] = 20 << 20
    """Most text of one document, in UTF-8; held in the worker's memory, with the overlap of its chunks."""

    pages: _Count = 5000
    """Most pages of a PDF, slides of a presentation, sheets of a workbook."""

    entries: _Count = 10_000
    """Most files within an Office document, which is a zip archive."""

    unpacked_bytes: _LargeBytes = 1 << 30
    """Largest Office document, unpacked."""

    ratio: _Count = 200
    """How many times larger than itself an Office document may be unpacked, from 16 MiB on."""

    seconds: Seconds = 120.0
    """Longest time of the processor for one document. By the clock it may take twice as long for a request,
    and ten times as long for a vector store: the machine may be busy."""

    memory_bytes: Annotated[int, Field(ge=64 << 20, le=1 << 40)] = 512 << 20
    """Most memory for one document."""

    concurrency: int = Field(default=2, ge=1, le=64)
    """Documents of vector stores that a worker reads at a time; others wait."""

    request_concurrency: int = Field(default=2, ge=1, le=64)
    """Documents of requests (`input_file`) that a worker reads at a time, beside those of vector stores."""

    wait_seconds: Seconds = 15.0
    """How long the document of a request waits for its turn; then the request is answered with 503."""

    directory: Path | None = None
    """Where a document is kept while it is read, in a file without a name; unset: the system's directory of
    temporary files."""
