"""Forms (`multipart/form-data`) read as they arrive: `engine.ports.Form` over python-multipart.

The parser is fed by who asks for more, so what a client sends waits at Envoy, or in its socket, until what
came before has been stored (rule E6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from engine.errors import InvalidRequest, UnsupportedMedia
from engine.ports import FormPart
from extproc.messages import Head

_MOST_PARTS = 16
_MEDIA_TYPE = b"multipart/form-data"


def read_form(head: Head, pieces: AsyncIterator[bytes]) -> MultipartForm:
    """Return the form that a request brings; raises UnsupportedMedia, InvalidRequest."""
    try:
        media_type, options = parse_options_header(head.headers.get("content-type", ""))
    except UnicodeEncodeError:
        # What a header has beyond Latin-1, which is also what stands for bytes that are no UTF-8.
        raise UnsupportedMedia("The content type has characters that no header may have.") from None
    if media_type != _MEDIA_TYPE:
        raise UnsupportedMedia(f"Files are sent as {_MEDIA_TYPE.decode()}.")
    if head.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia("Forms are not decoded: send them without a content encoding.")
    if head.ended or not options.get(b"boundary"):
        raise _broken("it has no boundary or no body")
    return MultipartForm(options[b"boundary"], pieces)


class MultipartForm:
    """A form whose parts are `pieces` between boundaries."""

    def __init__(self, boundary: bytes, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._events: deque[_Part | bytes | None] = deque()
        self._field = self._value = b""
        self._disposition = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _broken(str(error)) from error

    async def parts(self) -> AsyncIterator[FormPart]:
        """Yield each part; what was not read of one is skipped when the next is asked for."""
        count = 0
        while await self._more():
            event = self._events.popleft()
            if isinstance(event, _Part):
                count += 1
                if count > _MOST_PARTS:
                    raise _broken(f"it has more than {_MOST_PARTS} parts")
                yield event
        if not self._ended:
            raise _broken("it ends in the middle")

    async def of_part(self) -> AsyncIterator[bytes]:
        """Yield what is left of the part that was begun last."""
        while await self._more():
            event = self._events[0]
            if isinstance(event, _Part):
                return
            self._events.popleft()
            if event is None:
                return
            yield event
        raise _broken("it ends in the middle")

    async def _more(self) -> bool:
        """Parse until something is there; False at the end of the request."""
        while not self._events:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            try:
                self._parser.write(piece)
            except FormParserError as error:
                raise _broken(str(error)) from error
        return True

    def _begin(self) -> None:
        self._disposition = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _broken("a part has no name")
        filename = options.get(b"filename")
        self._events.append(
            _Part(self, _text(options[b"name"]), None if filename is None else _text(filename))
        )

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _part_end(self) -> None:
        self._events.append(None)

    def _end(self) -> None:
        self._ended = True


class _Part:
    """One field of a form."""

    def __init__(self, form: MultipartForm, name: str, filename: str | None) -> None:
        self._form = form
        self.name = name
        self.filename = filename

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield what it holds."""
        return self._form.of_part()


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _broken("a name is not UTF-8") from None


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {why}.", code="invalid_form")
