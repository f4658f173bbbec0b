"""The whole store in the memory of one process: for tests and for trying Holdfast out.

Nothing survives the process. `tests/contract` holds it and the Postgres store to the same rules.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from storage.memory.runs import MemoryRuns


class MemoryStore(MemoryRuns):
    """`engine.ports.Store`; `clock` gives seconds, for leases and retention."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
