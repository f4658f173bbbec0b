"""JSON as the API needs it: strict on the way in, compact on the way out.

Numbers keep their kind (int or float), key order is kept, NaN and lone surrogates are refused.
"""

from __future__ import annotations

import msgspec

from engine.errors import InvalidRequest

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
        return isinstance(_any_decoder.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def is_json(text: str) -> bool:
    """True if the text is one whole JSON document."""
    try:
        _any_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
