"""A turn's answer with the citations taken out of its text (rules R7, T8).

It stands behind the reader of a dialect: what the server says of its text as a whole is compared with the
text as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from engine.api.json import encode
from engine.context.sources import Source, Sources
from engine.response.inputs import Cited, Content, TextDelta
from engine.upstream.care import Made
from engine.upstream.citations import CitationReader, Mark
from engine.upstream.dialect import TurnReader
from engine.upstream.logprobs import NONE
from engine.upstream.rules import Outcome


class Citing:
    """A `TurnReader` that has its content from another; `sources` are what can be cited."""

    def __init__(self, reader: TurnReader, sources: Sources) -> None:
        self._reader = reader
        self._sources = sources
        self._known: dict[int, Source | None] = {}
        self._text = CitationReader(self._find)
        self._tokens = _Tokens()

    @property
    def outcome(self) -> Outcome | None:
        """How the turn ended; None while it goes on."""
        return self._reader.outcome

    @property
    def made(self) -> Made:
        """What the model wrote, marks and all."""
        return self._reader.made

    @property
    def held(self) -> int:
        """Characters that were received and not let through yet."""
        return self._reader.held + len(self._text.held)

    def receive(self, data: bytes) -> list[Content]:
        """Take the data of one server-sent event."""
        contents = self._reader.receive(data)
        return contents if self._passes(contents) else self._let_through(contents)

    def end(self) -> list[Content]:
        """Take the end of the stream, also a broken one."""
        return self._let_through(self._reader.end())

    def receive_whole(self, body: bytes) -> list[Content]:
        """Take an answer that is no stream."""
        return self._let_through(self._reader.receive_whole(body))

    def _passes(self, contents: list[Content]) -> bool:
        """True for what comes most often: a token without any bracket."""
        if len(contents) != 1 or type(contents[0]) is not TextDelta:
            return False
        return not self._tokens.waiting and self._text.passes(contents[0].text)

    def _let_through(self, contents: Iterable[Content]) -> list[Content]:
        made: list[Content] = []
        for content in contents:
            if type(content) is TextDelta:
                made += self._said(content)
            else:
                made += self._released(self._text.end())
                made.append(content)
        if self._reader.outcome is not None:
            made += self._released(self._text.end())
        return made

    def _said(self, delta: TextDelta) -> list[Content]:
        if not self._tokens.waiting and self._text.passes(delta.text):
            return [delta]
        if delta.logprobs != NONE or self._tokens.waiting:
            self._tokens.add(delta, waiting=len(self._text.held))
        if not delta.text:
            return [TextDelta("", self._tokens.take(0))]
        return self._released(self._text.feed(delta.text))

    def _released(self, pieces: Iterable[str | Mark]) -> list[Content]:
        made: list[Content] = []
        for piece in pieces:
            if isinstance(piece, str):
                made.append(TextDelta(piece, self._tokens.take(len(piece))))
                continue
            self._tokens.drop(len(piece.text))
            for place, source in enumerate(piece.sources):
                mark = "" if place else piece.text
                made.append(Cited(mark, source.file_id, source.filename))
        return made

    def _find(self, number: int) -> Source | None:
        if number not in self._known:
            self._known[number] = self._sources.find(number)
        return self._known[number]


class _Token(msgspec.Struct):
    """So much text that came with these entries; `cut`: a part of it was in a mark."""

    length: int
    entries: list[msgspec.Raw]
    cut: bool = False


class _Name(msgspec.Struct):
    token: str


_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_name = msgspec.json.Decoder(_Name).decode


class _Tokens:
    """Log probabilities on their way beside the text: those of a mark's tokens go with it.

    A token that is partly in a mark goes, too; one whose text is let through in two pieces is told with
    the second.
    """

    def __init__(self) -> None:
        self.waiting: list[_Token] = []

    def add(self, delta: TextDelta, *, waiting: int) -> None:
        """Take those of a delta, behind so many characters that wait."""
        missing = waiting - sum(token.length for token in self.waiting)
        if missing > 0:
            self.waiting.append(_Token(missing, []))
        entries = _raws(delta.logprobs)
        lengths = [len(_name(entry).token) for entry in entries]
        if sum(lengths) == len(delta.text):
            self.waiting += map(_Token, lengths, ([entry] for entry in entries))
        else:
            # Tokens that are parts of characters: which text is whose cannot be told.
            self.waiting.append(_Token(len(delta.text), entries))

    def take(self, length: int) -> bytes:
        """Return those of the next so many characters, which are let through."""
        if not self.waiting:
            return NONE
        return encode(self._next(length, cut=False))

    def drop(self, length: int) -> None:
        """Forget those of the next so many characters, which are a mark."""
        if self.waiting:
            self._next(length, cut=True)

    def _next(self, length: int, *, cut: bool) -> list[msgspec.Raw]:
        done: list[msgspec.Raw] = []
        while self.waiting:
            token = self.waiting[0]
            if token.length > length:
                token.length -= length
                token.cut = token.cut or (cut and length > 0)
                break
            token.cut = token.cut or (cut and token.length > 0)
            length -= token.length
            done += [] if token.cut else token.entries
            del self.waiting[0]
        return done
