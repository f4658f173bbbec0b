"""Where a worker writes its metrics down: files that outlive it, mapped into memory (docs/adr/0025).

The format is that of prometheus-client's multi-process mode, and its collector merges the files. A worker's
files are named by its index and not by its pid: the next life of a worker opens the same ones and counts on
from where a `kill -9` left them. No counter of a pod goes backwards, and there are never more files than
workers. The gauges of a dead worker are removed by its supervisor.

One thread writes: the event loop's.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from extproc.metrics.declared import Metric

# Reserved at once: a page of a mapped file that finds no room on the disk kills the process. A series takes
# some 200 bytes, one of a histogram as much for each of its buckets.
_BYTES = {
    "counter": 128 << 10,
    "histogram": 512 << 10,
    "gauge_livesum": 64 << 10,
    "gauge_livemax": 64 << 10,
}

Values = tuple[str, ...]


def _key(metric: Metric, sample: str, names: Values, values: Values) -> str:
    return mmap_key(metric.family, sample, list(names), list(values), metric.meaning)


class _File:
    """Numbers by their keys. What is told when it is closed is lost: a request may outlive its worker."""

    def __init__(self, path: Path) -> None:
        self._numbers: MmapedDict | None = MmapedDict(str(path))

    def read(self, key: str) -> float:
        value: float = 0.0 if self._numbers is None else self._numbers.read_value(key)[0]
        return value

    def write(self, key: str, value: float) -> None:
        if self._numbers is not None:
            self._numbers.write_value(key, value, 0.0)

    def keys(self) -> Iterator[str]:
        if self._numbers is not None:
            for key, _value, _time in self._numbers.read_all_values():
                yield key

    def close(self) -> None:
        if self._numbers is not None:
            self._numbers.close()
            self._numbers = None


class Cell:
    """One number of a file; a former life's is counted on."""

    __slots__ = ("_file", "_key", "value")

    def __init__(self, file: _File, key: str) -> None:
        self._file = file
        self._key = key
        self.value = file.read(key)

    def add(self, amount: float) -> None:
        """Count on."""
        if not amount:
            return
        self.value += amount
        self._file.write(self._key, self.value)

    def set(self, value: float) -> None:
        """Be this; for gauges."""
        if value != self.value:
            self.value = value
            self._file.write(self._key, value)


class Observed:
    """One series of a histogram."""

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, file: _File, metric: Metric, names: Values, values: Values) -> None:
        self._bounds = metric.buckets
        self._sum = Cell(file, _key(metric, f"{metric.name}_sum", names, values))
        bounds = map(floatToGoString, (*metric.buckets, float("inf")))
        self._buckets = [
            Cell(file, _key(metric, f"{metric.name}_bucket", (*names, "le"), (*values, bound)))
            for bound in bounds
        ]

    def add(self, amount: float) -> None:
        """Count one observation."""
        self._sum.add(amount)
        self._buckets[bisect_left(self._bounds, amount)].add(1)


class Book:
    """The files of worker `index` in `directory`; raises OSError where they cannot be written.

    `tenants` says whether the metrics that can have the label `tenant` do.
    """

    def __init__(self, directory: Path, index: int, *, tenants: bool) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tenants = tenants
        self._files = {
            kind: _opened(directory / f"{kind}_{index}.db", size) for kind, size in _BYTES.items()
        }
        self._cells: dict[tuple[str, Values], Cell] = {}
        self._observed: dict[tuple[str, Values], Observed] = {}

    def cell(self, metric: Metric, values: Values = ()) -> Cell:
        """Return the number of a series of a counter or a gauge."""
        found = self._cells.get((metric.name, values))
        if found is None:
            kind = metric.kind if metric.kind == "counter" else f"gauge_live{metric.merged}"
            names = metric.label_names(tenants=self._tenants)
            key = _key(metric, metric.name, names, values)
            found = self._cells[metric.name, values] = Cell(self._files[kind], key)
        return found

    def observed(self, metric: Metric, values: Values = ()) -> Observed:
        """Return a series of a histogram."""
        found = self._observed.get((metric.name, values))
        if found is None:
            names = metric.label_names(tenants=self._tenants)
            found = Observed(self._files["histogram"], metric, names, values)
            self._observed[metric.name, values] = found
        return found

    def written(self) -> Iterator[str]:
        """Yield the keys of all series that there are, a former life's too: JSON, as the format has it."""
        for file in self._files.values():
            yield from file.keys()

    def close(self) -> None:
        """Write no more."""
        for file in self._files.values():
            file.close()


def _opened(path: Path, size: int) -> _File:
    with path.open("a+b") as file:
        if sys.platform == "linux":
            os.posix_fallocate(file.fileno(), 0, size)
    return _File(path)
