"""Query strings of reads and lists, and the list object (rule H2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qsl

import msgspec

from engine.api import checks
from engine.api.json import encode
from engine.api.request import INCLUDABLE
from engine.ports import Order

_ORDER = checks.one_of("asc", "desc")
_INCLUDE = checks.one_of(*INCLUDABLE)
_TRUE_OR_FALSE = checks.one_of("true", "false")
_LIMIT = checks.integer(1, 100)


class ListQuery(msgspec.Struct, frozen=True):
    """`limit` 1 to 100, `after` the id of the last item of the page before, newest first by default."""

    limit: int = 20
    after: str | None = None
    order: Order = "desc"
    model: str | None = None


class RetrieveQuery(msgspec.Struct, frozen=True):
    """`stream`: the events numbered above `after` instead of the object; -1 stands for all."""

    stream: bool
    after: int


def read_count(value: str, name: str, wanted: str) -> int:
    """Return a number that is text in a request; raises InvalidRequest that says what was `wanted`."""
    text = value.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise checks.wrong_value(value, name, wanted)
    return int(text)


def _limit(value: str) -> int:
    limit = _LIMIT(read_count(value, "limit", "an integer from 1 to 100"), "limit")
    assert isinstance(limit, int)
    return limit


_LIST_PARAMETERS: Mapping[str, Callable[[str], object]] = {
    "limit": _limit,
    "after": lambda value: checks.name(value, "after"),
    "order": lambda value: _ORDER(value, "order"),
    "model": lambda value: checks.name(value, "model"),
}


def parse_list(query: str, parameters: Sequence[str]) -> ListQuery:
    """Check the query of a list; `parameters` are those that this list has."""
    values: dict[str, object] = {}
    for name, value in query_pairs(query):
        if name == "include":
            _INCLUDE(value, "include")
        elif name not in parameters:
            raise checks.unknown(name, parameters)
        else:
            values[name] = _LIST_PARAMETERS[name](value)
    return msgspec.convert(values, ListQuery)


def parse_retrieve(query: str) -> RetrieveQuery:
    """Check the query of `GET /v1/responses/{id}`; raises InvalidRequest."""
    stream, after = False, None
    for name, value in query_pairs(query):
        if name == "include":
            # Nothing is left out of a stored response, so whatever is asked to be included is.
            _INCLUDE(value, "include")
        elif name == "stream":
            stream = _TRUE_OR_FALSE(value, name) == "true"
        elif name == "include_obfuscation":
            if _TRUE_OR_FALSE(value, name) == "true":
                raise checks.unsupported(name, "streams carry no obfuscation.")
        elif name == "starting_after":
            after = read_count(value, name, "an integer from 0")
        else:
            raise checks.unknown(name, ("include", "stream", "starting_after"))
    if after is not None and not stream:
        raise checks.wrong_value(str(after), "starting_after", "left out, or sent with stream=true")
    return RetrieveQuery(stream, -1 if after is None else after)


def parse_version_query(query: str) -> int | None:
    """Check the query of `GET /v1/prompts/{id}`; return the version that it names."""
    version = None
    for name, value in query_pairs(query):
        if name != "version":
            raise checks.unknown(name, ("version",))
        version = read_count(value, name, "the number of a version")
    return version


def no_parameters(query: str) -> None:
    """Refuse every query parameter."""
    for name, _ in query_pairs(query):
        raise checks.unknown(name)


def only_include(query: str) -> None:
    """Refuse every query parameter but `include`: nothing is left out of a stored item."""
    for name, value in query_pairs(query):
        if name != "include":
            raise checks.unknown(name, ("include",))
        _INCLUDE(value, "include")


def query_pairs(query: str) -> Iterable[tuple[str, str]]:
    """Yield the parameters; arrays come as `name[]`, `name[0]` or by repetition."""
    for name, value in parse_qsl(query, keep_blank_values=True):
        yield name.partition("[")[0], value


def list_object(items: Sequence[bytes], ids: Sequence[str], *, has_more: bool) -> bytes:
    """Return `{object: list, data, first_id, last_id, has_more}`; the ids are null for an empty page."""
    tail = encode(
        {
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": has_more,
        }
    )
    return b'{"object":"list","data":[%b],%b' % (b",".join(items), tail[1:])
