"""Forms with files in them (`multipart/form-data`), read as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class FormPart(Protocol):
    """One field of a form; `filename` is None unless it is a file."""

    name: str
    filename: str | None

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield what it holds, as it arrives; raises `InvalidRequest` where the form is broken."""
        ...


class Form(Protocol):
    """A form that is still arriving."""

    def parts(self) -> AsyncIterator[FormPart]:
        """Yield each part; what was not read of one is skipped when the next is asked for."""
        ...


class BodyReply(Protocol):
    """The client's side of an exchange whose answer is bytes."""

    async def begin(self, status: int, headers: dict[str, str]) -> None:
        """Start an answer; its body is written then."""
        ...

    async def write(self, frames: bytes) -> None:
        """Send more of the body; where the client does not read, this waits if it can."""
        ...

    async def end(self) -> None:
        """End the answer."""
        ...
