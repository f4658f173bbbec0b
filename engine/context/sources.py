"""What a search has found as the model is told it, and back: which file a cited number means (rule T8).

Every passage has a number that no other one has in what the model is sent: numbers count on over the calls
of a response and over the responses of a thread. They are kept where the model reads them, in the output of
the call, so that the replayed call is all that a later turn needs. A stored call tells which numbers are
its own in `call_id`, as `found:FIRST-LAST`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from engine.api.file_search import CALL

_PREFIX = "found:"
CITATION = re.compile(
    r" ?【[ ]?(\d{1,6}(?:[ ]?[,，、;][ ]?\d{1,6}){0,7})[ ]?(?:†[^【】\n]{0,64})?】"
)
"""A mark as the model writes it: `【3】`, `【3, 5】`, `【3†L1-L9】`, the space before it included."""

_NUMBERED = re.compile(r"【(\s*\d[^【】\n]*)】")
_HEADING = r"^【%d】 (.*) \((\S+)\)$"


class Found(msgspec.Struct, frozen=True):
    """A result as the item of a call shows it."""

    file_id: str = ""
    filename: str = ""
    text: str = ""


class Source(msgspec.Struct, frozen=True):
    """The file that a number means."""

    file_id: str
    filename: str


class _Stored(Protocol):
    """Of a stored item, whatever else is known of it."""

    @property
    def type(self) -> str: ...

    @property
    def call_id(self) -> str | None: ...

    @property
    def replay(self) -> bytes | None: ...


class _Numbers(msgspec.Struct, frozen=True):
    first: int
    last: int
    replay: bytes


class Sources(msgspec.Struct, frozen=True):
    """All that was found in what precedes a turn; nothing of it is parsed before it is asked for."""

    calls: tuple[_Numbers, ...] = ()

    @classmethod
    def of(cls, items: Iterable[_Stored]) -> Sources:
        """Return what the calls among these items have found."""
        return cls(tuple(found for item in items if (found := _numbers(item)) is not None))

    def __add__(self, other: Sources) -> Sources:
        """Return both; where a number means two files, the later one counts."""
        return Sources((*self.calls, *other.calls))

    @property
    def next(self) -> int:
        """The number of the next passage to be found."""
        return max((call.last for call in self.calls), default=0) + 1

    def find(self, number: int) -> Source | None:
        """Return the file that a number means, None if nothing was found under it."""
        for call in reversed(self.calls):
            if call.first <= number <= call.last:
                return _read(call.replay, number)
        return None


NO_SOURCES = Sources()


def numbered(first: int, count: int) -> str | None:
    """Return what tells the numbers of a call that has found so much."""
    return f"{_PREFIX}{first}-{first + count - 1}" if count else None


def told(results: Sequence[Found], first: int) -> str:
    """Return what the model is told of a search, numbered from `first` on."""
    if not results:
        return "Nothing was found. Try other words, or say that the files have no answer."
    passages = "\n\n".join(
        f"【{number}】 {_line(each.filename)} ({_line(each.file_id)})\n{_unmarked(each.text)}"
        for number, each in enumerate(results, first)
    )
    return (
        f"{passages}\n\nCite as 【{first}】: the number, directly behind what you took from there."
    )


def _line(text: str) -> str:
    """Return a name in one line, that no heading can be made with."""
    return _unmarked(" ".join(text.split()))


def _unmarked(text: str) -> str:
    """Return a document's text without what would look like a mark of ours."""
    return _NUMBERED.sub(r"〔\1〕", text)


def _numbers(item: _Stored) -> _Numbers | None:
    if item.type != CALL or item.call_id is None or item.replay is None:
        return None
    first, _, last = item.call_id.removeprefix(_PREFIX).partition("-")
    return _Numbers(int(first), int(last), item.replay)


class _Replayed(msgspec.Struct, frozen=True):
    output: str = ""


_decode = msgspec.json.Decoder(list[_Replayed]).decode


def _read(replay: bytes, number: int) -> Source | None:
    heading = re.compile(_HEADING % number, re.MULTILINE)
    for item in _decode(b"[%b]" % replay):
        if (match := heading.search(item.output)) is not None:
            return Source(file_id=match[2], filename=match[1])
    return None
