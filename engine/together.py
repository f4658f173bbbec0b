"""Several things waited for at once: the first that fails ends the others, and is what the caller sees."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")
_A = TypeVar("_A")
_B = TypeVar("_B")


async def together(works: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return the results in the order of `works`; nothing of them runs on when this returns or raises."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        first = failed.exceptions[0]
    else:
        return [task.result() for task in tasks]
    # Outside of the handler, so that it keeps the cause that it has.
    raise first


async def both(one: Coroutine[Any, Any, _A], other: Coroutine[Any, Any, _B]) -> tuple[_A, _B]:
    """Return the results of two things of different kinds, as `together` does."""
    results: list[Any] = await together([one, other])
    return results[0], results[1]
