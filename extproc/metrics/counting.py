"""What a worker counts with, for as long as it lives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from extproc.metrics.book import Book
from extproc.metrics.meters import BookMeters
from extproc.settings import Settings

_log = logging.getLogger(__name__)


@contextmanager
def counting(settings: Settings, index: int) -> Iterator[BookMeters | None]:
    """Give the meters of worker `index`; None where nothing is counted: a worker serves without, too."""
    chosen = settings.metrics
    if not chosen.enabled:
        yield None
        return
    try:
        book = Book(settings.metrics_directory, index, tenants=chosen.tenant_label)
    except OSError as error:
        where = settings.metrics_directory
        _log.error("nothing is counted: %s cannot be written: %s", where, error.strerror)
        yield None
        return
    try:
        tenants = chosen.tenants if chosen.tenant_label else None
        yield BookMeters(book, models=chosen.models, tenants=tenants)
    finally:
        book.close()
