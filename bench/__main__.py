"""Everything that is measured: `python -m bench [SECTION ...]`, all of them by default.

Each section compares within one run; figures of different runs are not comparable.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from bench import (
    citing,
    commits,
    conversations,
    durability,
    index,
    ingestion,
    loop,
    metrics,
    readers,
    streams,
    traces,
)

_Given = argparse.Namespace
_SECTIONS: Mapping[str, Callable[[_Given], Awaitable[None]]] = {
    "streams": lambda given: streams.run(given.streams, given.seconds, inline=given.inline),
    "durability": lambda given: durability.run(max(given.streams), given.seconds),
    "readers": lambda given: readers.run(given.readers),
    "commits": lambda given: commits.run(given.seconds),
    "conversations": lambda given: conversations.run(given.turns, given.drawing),
    "index": lambda given: index.run(given.chunks, given.seconds / 4, given.milvus),
    "ingestion": lambda given: ingestion.run(given.files),
    "citing": lambda _: citing.run(),
    "metrics": lambda given: metrics.run(16, given.seconds),
    "traces": lambda given: traces.run(given.seconds, given.rounds),
    "loop": lambda given: loop.run(given.seconds),
}


async def _main(given: argparse.Namespace) -> None:
    for name, measure in _SECTIONS.items():
        if name in given.sections:
            await measure(given)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", default=list(_SECTIONS), metavar="SECTION")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 200])
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement, roughly")
    parser.add_argument("--readers", type=int, default=1000, help="clients that do not read")
    parser.add_argument("--inline", action="store_true", help="streams: requests travel on")
    parser.add_argument("--turns", type=int, default=500, help="of one conversation")
    parser.add_argument("--rounds", type=int, default=5, help="traces: measurements of each way")
    parser.add_argument("--drawing", type=Path, help="SVG to be made of one conversation's turns")
    parser.add_argument("--files", type=int, default=100, help="ingestion: files")
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--milvus", help="URL of a Milvus to measure too; its collections are dropped"
    )
    asyncio.run(_main(parser.parse_args()))
