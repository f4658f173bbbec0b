"""JSON as the API needs it: strict on the way in, compact on the way out.

Numbers keep their kind (int or float), key order is kept, NaN and lone surrogates are refused.
"""

from __future__ import annotations

import msgspec

from engine.api.json_size import has_more_values
from engine.errors import InvalidRequest

MOST_VALUES = 1_000_000
"""In a body: some ten times what the largest prompt of a model can be made of, and 0.2 s to decode."""
# A longer text is looked at without making what it holds.
_LARGE_TEXT = 65_536

_TYPE_NAMES = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}

encode = msgspec.json.Encoder().encode
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_decoder = msgspec.json.Decoder()
_whole_decoder = msgspec.json.Decoder(msgspec.Raw)


class _Lists(msgspec.Struct):
    """The fields of bodies that may be long, or hold anything."""

    input: msgspec.Raw = msgspec.Raw()
    items: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    client_metadata: msgspec.Raw = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()


_lists_decoder = msgspec.json.Decoder(_Lists)


def type_name(value: object) -> str:
    """Return JSON's word for the type of a decoded value."""
    return _TYPE_NAMES.get(type(value), "value")


def read_object(body: bytes) -> dict[str, msgspec.Raw]:
    """Decode the top level of a JSON object, its values unparsed; raises InvalidRequest."""
    try:
        return _object_decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"The body must be a JSON object: {exc}", code="invalid_json") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}", code="invalid_json") from exc
    except RecursionError as exc:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from exc


def check_values(body: bytes) -> None:
    """Refuse a body of more than MOST_VALUES values; raises InvalidRequest that names the field at fault.

    For all bodies, before anything is made of them (rule X5). A body that is no JSON may pass.
    """
    if not has_more_values(body, MOST_VALUES):
        return
    try:
        lists = _lists_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        lists = _Lists()
    full = (
        name
        for name in lists.__struct_fields__
        if has_more_values(bytes(getattr(lists, name)), MOST_VALUES // 2)
    )
    param = next(full, None)
    where = "The body" if param is None else f"'{param}'"
    raise InvalidRequest(
        f"{where} holds too many values: a body may have {MOST_VALUES} in its arrays and objects.",
        param=param,
        code="too_many_values",
    )


def read_value(raw: msgspec.Raw, param: str) -> object:
    """Decode one value whole; raises InvalidRequest that names `param`."""
    try:
        return _any_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(
            f"'{param}' is not valid JSON: {exc}", param=param, code="invalid_json"
        ) from exc
    except RecursionError as exc:
        raise InvalidRequest(
            f"'{param}' is nested too deeply.", param=param, code="invalid_json"
        ) from exc


def is_json_object(text: str) -> bool:
    """True if the text is one whole JSON object."""
    try:
        if len(text) > _LARGE_TEXT:
            _object_decoder.decode(text)
            return True
        return isinstance(_any_decoder.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def is_json(text: str) -> bool:
    """True if the text is one whole JSON document."""
    try:
        _whole_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
