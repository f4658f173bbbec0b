"""Held markup read as calls, where it is complete: for servers that have no parser, or lost it (rule R8).

Only what is whole and names a function that was declared becomes a call; anything else stays text. The
forms are those of `shapes`, read with more patience for white space than the servers' own parsers have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from engine.api.tools import FunctionTool
from engine.upstream.json_scan import JsonScan

_NAME = r"[A-Za-z0-9_.:/-]+"
_SPACE = re.compile(r"\s*")
_XML_NAME = re.compile(rf"<function=({_NAME})>\s*")
_XML_PARAMETER = re.compile(rf"<parameter=({_NAME})>")
_GLM_NAME = re.compile(rf"({_NAME})\s*")
_GLM_KEY = re.compile("<arg_key>")
_GLM_VALUE = re.compile(r"\s*<arg_value>")
_MISTRAL_NAME = re.compile(rf"({_NAME})\s*(?:\[CALL_ID\]\s*[A-Za-z0-9_-]+\s*)?(?:\[ARGS\]\s*)?")
_KIMI_NAME = re.compile(
    rf"<\|tool_call_begin\|>\s*(?:functions\.)?({_NAME}?)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*"
)
_DEEPSEEK_NAME = re.compile(
    rf"<｜tool▁call▁begin｜>\s*(?:function<｜tool▁sep｜>)?({_NAME})(?:<｜tool▁sep｜>)?\s*(?:```json\s*)?"
)
_FUNCTIONARY_NAME = re.compile(rf"(?:>>>)?({_NAME})\n\s*")


# A text with more of them is no list of calls.
_MOST_OPENERS = 256
# Each opener may cost a look at all that follows it. Characters that may be looked at in vain, beyond once
# the text's length: who writes the text must not be able to make the work grow with its square.
_MOST_WASTED = 65_536


class Call(msgspec.Struct, frozen=True):
    """A call that was read: its arguments are one JSON object."""

    name: str
    arguments: str


class Rest(msgspec.Struct, frozen=True):
    """The end of a text, from the start of a call on that breaks off before its end."""

    text: str


Piece = str | Call | Rest


class _Malformed(Exception):
    """This is no call."""


class _BreaksOff(Exception):
    """This may have become a call, but the text ends."""


class _Reader:
    """Reads calls from one text, at a place that moves on."""

    def __init__(self, text: str, tools: Mapping[str, FunctionTool] | None) -> None:
        self.text = text
        self.place = 0
        self._tools = tools
        self._furthest = 0

    @property
    def furthest(self) -> int:
        """The end of what was looked at."""
        return max(self._furthest, self.place)

    def skip(self, *closers: str) -> bool:
        """Pass over white space and the first closer that stands there; False if none does."""
        self._space()
        for closer in closers:
            if self.text.startswith(closer, self.place):
                self.place += len(closer)
                self._space()
                return True
        return False

    def close(self, closer: str) -> None:
        """Pass over what ends a call; models also leave it out, at the end and before the next call."""
        closed = self.skip(closer) or self.place == len(self.text)
        if not closed and not _OPENER.match(self.text, self.place):
            self.fail()

    def take(self, pattern: re.Pattern[str]) -> str:
        """Pass over a pattern; return its first group."""
        found = self.passed(pattern)
        if found is None:
            self.fail()
        assert found is not None
        return found[1]

    def fail(self) -> None:
        """Raise: the text ends here, or something else stands here."""
        self._space()
        raise _Malformed if self.place < len(self.text) else _BreaksOff

    def passed(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Pass over a pattern if it stands here."""
        found = pattern.match(self.text, self.place)
        if found is not None:
            self.place = found.end()
        return found

    def until(self, closer: str) -> str | None:
        """Return what stands before a closer, and pass over both; None if none follows."""
        end = self.text.find(closer, self.place)
        if end < 0:
            self._furthest = len(self.text)
            return None
        inner = self.text[self.place : end]
        self.place = end + len(closer)
        return inner

    def pairs(self, pair: _Pair, name: str) -> dict[str, object]:
        """Pass over all `key value` of a call in XML; values are what the function's schema says."""
        given: dict[str, object] = {}
        begun = self.place
        while (found := pair(self)) is not None:
            key = found[0].strip()
            given[key] = _value(found[1], self._schema(name, key))
            self._space()
            begun = self.place
        self._furthest = self.furthest
        self.place = begun
        return given

    def json(self) -> object:
        """Pass over one object or array."""
        if not self.text.startswith(("{", "["), self.place):
            self.fail()
        end = JsonScan().feed(self.text, self.place)
        if end is None:
            raise _BreaksOff
        raw = self.text[self.place : end]
        self.place = end
        try:
            return json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            raise _Malformed from exc

    def call(self, name: object, arguments: object) -> Call:
        """Return the call, if there is such a function and the arguments are an object."""
        if isinstance(arguments, str):
            arguments = _parsed(arguments)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise _Malformed
        if self._tools is not None and name not in self._tools:
            raise _Malformed
        text = json.dumps(arguments, ensure_ascii=False)
        # An escaped half of a surrogate pair is valid JSON, and no UTF-8 can carry it.
        return Call(name, text.encode("utf-8", "replace").decode())

    def calls_of(self, value: object) -> list[Call]:
        """Return the calls of a JSON value: an object with name and arguments, or a list of such."""
        if isinstance(value, list):
            return [call for entry in value for call in self.calls_of(entry)]
        if not isinstance(value, dict):
            raise _Malformed
        inner = value.get("function")
        value = inner if isinstance(inner, dict) else value
        arguments = value.get("arguments", value.get("parameters", {}))
        return [self.call(value.get("name"), {} if arguments is None else arguments)]

    def _space(self) -> None:
        found = _SPACE.match(self.text, self.place)
        assert found is not None
        self.place = found.end()

    def _schema(self, name: str, key: str) -> object:
        tool = (self._tools or {}).get(name)
        properties = (tool.parameters or {}).get("properties") if tool else None
        return properties.get(key) if isinstance(properties, dict) else None


_Pair = Callable[[_Reader], tuple[str, str] | None]


def read_calls(text: str, declared: Sequence[FunctionTool] | None) -> list[Piece]:
    """Return what a held text consists of, in order; white space around calls is left out.

    `declared`: the functions that may be called; None: any.
    """
    tools = None if declared is None else {tool.name: tool for tool in declared}
    reader = _Reader(text, tools)
    try:
        return list(_bare(reader))
    except (_Malformed, _BreaksOff, RecursionError):
        return _pieces(text, tools)


def _pieces(text: str, tools: Mapping[str, FunctionTool] | None) -> list[Piece]:
    pieces: list[Piece] = []
    said = wasted = 0
    for start in islice(_OPENER.finditer(text), _MOST_OPENERS):
        if wasted > len(text) + _MOST_WASTED:
            break
        if start.start() < said:
            continue
        reader = _Reader(text, tools)
        reader.place = start.end()
        try:
            calls = _FORMS[start[0]](reader)
        except (_Malformed, RecursionError):
            # What is nested too deeply to be followed is no call either.
            calls = []
        except _BreaksOff:
            pieces += _prose(text[said : start.start()])
            return [*pieces, Rest(text[start.start() :])]
        if not calls:
            wasted += reader.furthest - start.start()
            continue
        reader.skip()
        pieces += [*_prose(text[said : start.start()]), *calls]
        said = reader.place
    return pieces + _prose(text[said:])


def _prose(text: str) -> list[Piece]:
    return [text] if text.strip() else []


# -- the forms: each reads on behind its opener --------------------------------------------------------


def _bare(reader: _Reader) -> Iterator[Piece]:
    """Read a text that is nothing but calls without markup, of declared functions."""
    if reader._tools is None:
        raise _Malformed
    reader.skip()
    functionary = not reader.text.startswith(("{", "["), reader.place)
    while reader.place < len(reader.text):
        if functionary:
            name = reader.take(_FUNCTIONARY_NAME)
            yield reader.call(name, reader.json())
        else:
            yield from reader.calls_of(reader.json())
        reader.skip(";", ",")


def _tagged(closer: str) -> Callable[[_Reader], list[Call]]:
    """Return the reader of a form with a closing tag around JSON, or around one of the XML forms."""

    def read(reader: _Reader) -> list[Call]:
        reader.skip()
        if reader.text.startswith("<function=", reader.place):
            calls = _xml_calls(reader)
        elif reader.text.startswith(("{", "["), reader.place):
            calls = _json_calls(reader)
        else:
            name = reader.take(_GLM_NAME)
            calls = [reader.call(name, reader.pairs(_glm_argument, name))]
            if not reader.skip(closer):
                reader.fail()
            return calls
        reader.close(closer)
        return calls

    return read


def _json_calls(reader: _Reader) -> list[Call]:
    """Read JSON, and more of it behind semicolons."""
    calls = reader.calls_of(reader.json())
    while reader.skip(";"):
        calls += reader.calls_of(reader.json())
    return calls


def _xml_calls(reader: _Reader) -> list[Call]:
    calls: list[Call] = []
    while reader.text.startswith("<function=", reader.place):
        name = reader.take(_XML_NAME)
        if reader.text.startswith("{", reader.place):
            calls.append(reader.call(name, reader.json()))
        else:
            calls.append(reader.call(name, reader.pairs(_xml_parameter, name)))
        if not reader.skip("</function>"):
            reader.fail()
    return calls


def _xml_parameter(reader: _Reader) -> tuple[str, str] | None:
    opened = reader.passed(_XML_PARAMETER)
    value = reader.until("</parameter>") if opened else None
    return None if opened is None or value is None else (opened[1], value)


def _glm_argument(reader: _Reader) -> tuple[str, str] | None:
    key = reader.until("</arg_key>") if reader.passed(_GLM_KEY) else None
    value = reader.until("</arg_value>") if key is not None and reader.passed(_GLM_VALUE) else None
    return None if key is None or value is None else (key, value)


def _llama(reader: _Reader) -> list[Call]:
    reader.skip()
    calls = _json_calls(reader)
    reader.skip("<|eom_id|>", "<|eot_id|>")
    return calls


def _mistral(reader: _Reader) -> list[Call]:
    reader.skip()
    if reader.text.startswith(("{", "["), reader.place):
        return _json_calls(reader)
    name = reader.take(_MISTRAL_NAME)
    return [reader.call(name, reader.json())]


def _functionary(reader: _Reader) -> list[Call]:
    name = reader.take(_FUNCTIONARY_NAME)
    return [reader.call(name, reader.json())]


def _kimi(reader: _Reader) -> list[Call]:
    reader.skip()
    calls: list[Call] = []
    while reader.text.startswith("<|tool_call_begin|>", reader.place):
        name = reader.take(_KIMI_NAME)
        calls.append(reader.call(name, reader.json()))
        if not reader.skip("<|tool_call_end|>"):
            reader.fail()
    reader.close("<|tool_calls_section_end|>")
    return calls


def _deepseek(reader: _Reader) -> list[Call]:
    reader.skip()
    calls: list[Call] = []
    while reader.text.startswith("<｜tool▁call▁begin｜>", reader.place):
        name = reader.take(_DEEPSEEK_NAME)
        calls.append(reader.call(name, reader.json()))
        reader.skip("```")
        if not reader.skip("<｜tool▁call▁end｜>"):
            reader.fail()
    reader.close("<｜tool▁calls▁end｜>")
    return calls


def _function_tag(reader: _Reader) -> list[Call]:
    """Read the XML form whose opener is a part of the call itself."""
    reader.place -= len("<function=")
    return _xml_calls(reader)


_FORMS: Mapping[str, Callable[[_Reader], list[Call]]] = {
    "<tool_call>": _tagged("</tool_call>"),
    "<tool_calls>": _tagged("</tool_calls>"),
    "<function_call>": _tagged("</function_call>"),
    "<function=": _function_tag,
    "<|python_tag|>": _llama,
    "<|tool_call|>": _llama,
    "<|tool_calls_section_begin|>": _kimi,
    "<｜tool▁calls▁begin｜>": _deepseek,
    "[TOOL_CALLS]": _mistral,
    ">>>": _functionary,
}
_OPENER = re.compile("|".join(map(re.escape, _FORMS)))


# -- values --------------------------------------------------------------------------------------------


def _value(text: str, schema: object) -> object:
    """Return a value that XML gives as text: a string where the schema allows one, else what JSON it is."""
    text = text.removeprefix("\n").removesuffix("\n")
    kinds = schema.get("type") if isinstance(schema, dict) else None
    if kinds is None or kinds == "string" or (isinstance(kinds, list) and "string" in kinds):
        return text
    value = _parsed(text)
    return text if value is None and text.strip() != "null" else value


def _parsed(text: str) -> object:
    """Return the JSON value of a text, None where it is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
