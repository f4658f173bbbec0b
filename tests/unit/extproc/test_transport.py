"""`extproc.transport`: several transports as one."""

from __future__ import annotations

from extproc.transport import Together


class Noted:
    """A transport that notes what is asked of it."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    async def start(self) -> None:
        """Note it."""
        self._notes.append(f"start {self._name}")

    async def drain(self) -> None:
        """Note it."""
        self._notes.append(f"drain {self._name}")

    async def stop(self, grace: float) -> None:
        """Note it."""
        self._notes.append(f"stop {self._name} {grace:g}")


async def test_transports_live_and_end_together() -> None:
    """E4: the last to start is the one that says that the worker is ready."""
    notes: list[str] = []
    together = Together(Noted("http", notes), Noted("ext_proc", notes))

    await together.start()
    await together.drain()
    await together.stop(5)

    assert notes == [
        *("start http", "start ext_proc"),
        *("drain http", "drain ext_proc"),
        *("stop http 5", "stop ext_proc 5"),
    ]
