"""What tool calls look like in text, model family by family, and how far a text agrees with it. Pure.

A shape is only the beginning of a call, as much of it as prose never has by chance: the token, and what
must follow it. `engine.upstream.markup` holds what agrees back; `markup_calls` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import Enum


class Agreement(Enum):
    """How far a text agrees with a shape: not at all, as far as it goes, or to the shape's end."""

    NONE = 0
    SO_FAR = 1
    WHOLE = 2


class _Blank(Enum):
    """What may stand at a place of a shape where no certain text does."""

    SPACE = "white space, or none"
    NAME = "a function's name"
    TOOL = "the name of a declared function"


SPACE, NAME, TOOL = _Blank.SPACE, _Blank.NAME, _Blank.TOOL
Shape = tuple[str | _Blank, ...]

# Longer than any name or white space of a call that is meant as one: what waits stays bounded (rule X5).
_LONGEST_BLANK = 200
_SPACES = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[A-Za-z0-9_.:/-]*")

_KEY = ('"name"', SPACE, ":", SPACE, '"')
SHAPES: tuple[Shape, ...] = (
    # Hermes and Qwen, Granite; Qwen Coder; GLM, with arguments and without.
    ("<tool_call>", SPACE, "{", SPACE, '"'),
    ("<tool_call>", SPACE, "[", SPACE, "{"),
    ("<tool_call>", SPACE, "<function="),
    ("<tool_call>", SPACE, NAME, SPACE, "<arg_key>"),
    ("<tool_call>", SPACE, NAME, SPACE, "</tool_call>"),
    # Llama's function form and functionary 3.1; Qwen Coder without its outer tag.
    ("<function=", NAME, ">", SPACE, "{"),
    ("<function=", NAME, ">", SPACE, "<"),
    ("<function_call>", SPACE, "{"),
    ("<tool_calls>", SPACE, "["),
    ("<tool_calls>", SPACE, "{"),
    ("<tool_calls>", SPACE, "<"),
    # Llama, Phi, Gemma, Kimi, DeepSeek: tokens of their vocabularies that nobody types.
    ("<|python_tag|>",),
    ("<|tool_call",),
    ("<｜tool▁call",),
    # Mistral: a list; a name and its arguments, with an id or without.
    ("[TOOL_CALLS]", SPACE, "["),
    ("[TOOL_CALLS]", SPACE, "{"),
    ("[TOOL_CALLS]", SPACE, NAME, SPACE, "{"),
    ("[TOOL_CALLS]", SPACE, NAME, "[CALL_ID]"),
    ("[TOOL_CALLS]", SPACE, NAME, "[ARGS]"),
    # Functionary 3.2.
    (">>>", NAME, "\n", SPACE, "{"),
)
"""Shapes that may begin anywhere in a text."""

TOKENS = tuple({str(shape[0]) for shape in SHAPES} - {">>>"})
"""Beginnings that only models write."""

BARE_SHAPES: tuple[Shape, ...] = (
    # Llama 3 calls without any token.
    (SPACE, "{", SPACE, *_KEY, TOOL, '"'),
    (SPACE, "[", SPACE, "{", SPACE, *_KEY, TOOL, '"'),
    (SPACE, "{", SPACE, '"type"', SPACE, ":", SPACE, '"function"', SPACE, ",", SPACE, *_KEY, TOOL, '"'),
    # Functionary 3.2: the prompt ends with the first call's `>>>`.
    (TOOL, "\n", SPACE, "{"),
)  # fmt: skip
"""Shapes that count only at the beginning of a message, and only with the name of a declared function."""


def agreement(shape: Shape, text: str, place: int, names: Collection[str] = ()) -> Agreement:
    """Compare `text` from `place` on with a shape; `names` are the declared functions."""
    for part in shape:
        if isinstance(part, str):
            if not text.startswith(part, place):
                return _so_far(part.startswith(text[place : place + len(part)]))
            place += len(part)
            continue
        end = _blank_end(part, text, place)
        if end - place > _LONGEST_BLANK:
            return Agreement.NONE
        if end == len(text):
            return _so_far(part is not TOOL or _begins(text[place:], names))
        if part is not SPACE and end == place:
            return Agreement.NONE
        if part is TOOL and text[place:end] not in names:
            return Agreement.NONE
        place = end
    return Agreement.WHOLE


def best(shapes: Sequence[Shape], text: str, place: int, names: Collection[str] = ()) -> Agreement:
    """Return the best agreement with any of the shapes."""
    found = Agreement.NONE
    for shape in shapes:
        agreed = agreement(shape, text, place, names)
        if agreed is Agreement.WHOLE:
            return agreed
        if agreed is Agreement.SO_FAR:
            found = agreed
    return found


def _blank_end(part: _Blank, text: str, place: int) -> int:
    found = (_SPACES if part is SPACE else _WORD).match(text, place, place + _LONGEST_BLANK + 1)
    assert found is not None
    return found.end()


def _so_far(agrees: bool) -> Agreement:
    return Agreement.SO_FAR if agrees else Agreement.NONE


def _begins(text: str, names: Collection[str]) -> bool:
    return any(name.startswith(text) for name in names)
