"""Everything that is measured: `python -m bench [SECTION ...]`, all of them by default.

Each section compares within one run; figures of different runs are not comparable.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from bench import citing, commits, conversations, durability, index, loop, readers, streams

_SECTIONS = (
    "streams",
    "durability",
    "readers",
    "commits",
    "loop",
    "conversations",
    "citing",
    "index",
)


async def _main(given: argparse.Namespace) -> None:
    if "streams" in given.sections:
        await streams.run(given.streams, given.seconds, inline=given.inline)
    if "durability" in given.sections:
        await durability.run(max(given.streams), given.seconds)
    if "readers" in given.sections:
        await readers.run(given.readers)
    if "commits" in given.sections:
        await commits.run(given.seconds)
    if "conversations" in given.sections:
        await conversations.run(given.turns, given.drawing)
    if "index" in given.sections:
        await index.run(given.chunks, given.seconds / 4, given.milvus)
    if "citing" in given.sections:
        citing.run()
    if "loop" in given.sections:
        await loop.run(given.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", default=_SECTIONS, metavar="SECTION")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 200])
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement, roughly")
    parser.add_argument("--readers", type=int, default=1000, help="clients that do not read")
    parser.add_argument("--inline", action="store_true", help="streams: requests travel on")
    parser.add_argument("--turns", type=int, default=500, help="of one conversation")
    parser.add_argument("--drawing", type=Path, help="SVG to be made of one conversation's turns")
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument(
        "--milvus", help="URL of a Milvus to measure too; its collections are dropped"
    )
    asyncio.run(_main(parser.parse_args()))
