"""What one request may have read for it: bytes, files and seconds, over all of its items (rule X5).

References and file ids cost their client nothing, so that what they stand for is counted here and not by
the size of the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.errors import InvalidRequest
from engine.limits import Limits


class Allowance:
    """What is left of it; begins when the first item of a request is resolved."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = limits.context_bytes
        self._files = limits.input_files
        self._deadline = asyncio.get_running_loop().time() + limits.input_seconds

    def take(self, size: int, param: str, *, code: str) -> None:
        """Count bytes that were read; raises InvalidRequest where they are more than are left."""
        self._bytes -= size
        if self._bytes < 0:
            raise InvalidRequest(
                f"Files and stored items in a request can have {self._limits.context_bytes} bytes; "
                "these have more.",
                param=param,
                code=code,
            )

    @asynccontextmanager
    async def a_file(self, param: str) -> AsyncIterator[None]:
        """Count a file and bound its reading; raises InvalidRequest for one too many or too late."""
        self._files -= 1
        if self._files < 0:
            raise InvalidRequest(
                f"A request can have {self._limits.input_files} files.",
                param=param,
                code="invalid_value",
            )
        wait = asyncio.timeout_at(self._deadline)
        try:
            async with wait:
                yield
        except TimeoutError as error:
            if not wait.expired():
                raise
            raise InvalidRequest(
                f"The files of a request must be read within {self._limits.input_seconds:g} seconds; "
                "these took longer.",
                param=param,
                code="files_too_slow",
            ) from error
