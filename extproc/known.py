"""What Envoy is told of an exchange, for its access log and its rate limits (docs/logs.md).

Ids, names and counts, never content (rules P5, X4).
"""

from __future__ import annotations

from engine.account import Fact
from engine.ports import Told
from extproc import messages
from extproc.pb.ext_proc_pb2 import ProcessingResponse


class Known:
    """Of one exchange: whose it is, what was asked, and what became of its response if it makes one."""

    def __init__(self) -> None:
        self.tenant = ""
        self.operation = ""
        self.told: Told | None = None
        self._usage: object = None

    def within(self, message: ProcessingResponse) -> ProcessingResponse:
        """Return a message with all that is known by now."""
        if self.told is not None:
            self._usage = self.told.usage
        return messages.with_facts(message, self._facts())

    def with_news(self, message: ProcessingResponse) -> ProcessingResponse:
        """Return a message of a stream, with all that is known where more tokens have been spent.

        So a client that leaves is charged for the turns before (docs/rate-limits.md).
        """
        if self.told is None or self.told.usage is self._usage:
            return message
        return self.within(message)

    def _facts(self) -> dict[str, Fact]:
        facts: dict[str, Fact] = {"tenant": self.tenant, "operation": self.operation}
        facts = {name: value for name, value in facts.items() if value}
        return facts if self.told is None else {**facts, **self.told.facts()}
