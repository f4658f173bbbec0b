"""A small valid instance of a JSON schema, as far as tools and outputs use schemas. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

# A recursive schema is followed this far; below it, whatever is optional is left out.
MAX_DEPTH = 8

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def instance(schema: Schema | bool, words: Mapping[str, str] | None = None) -> Any:
    """An instance of the schema; `words` gives the text for properties of those names, lists too."""
    root = schema if isinstance(schema, Mapping) else {}
    return _Maker(root, words or {}).make(schema, 0)


@dataclass(frozen=True, slots=True)
class _Maker:
    root: Schema
    words: Mapping[str, str] = field(default_factory=dict)

    def make(self, schema: Schema | bool, depth: int, name: str = "") -> Any:
        if isinstance(schema, bool):
            return "example"
        schema = self._resolve(schema)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("enum", "examples"):
            if schema.get(key):
                return schema[key][0]
        return self._by_type(schema, depth, name)

    def _resolve(self, schema: Schema) -> Schema:
        """Follows `$ref` and picks the first branch of a choice: what is left has a type."""
        for _ in range(MAX_DEPTH):
            if "$ref" in schema:
                schema = self._target(schema["$ref"])
            elif schema.get("allOf"):
                schema = self._merged(schema)
            elif schema.get("anyOf") or schema.get("oneOf"):
                schema = self._first_branch(schema.get("anyOf") or schema["oneOf"])
            else:
                break
        return schema

    def _target(self, ref: str) -> Schema:
        found: Any = self.root
        for step in ref.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step, {}) if isinstance(found, Mapping) else {}
        return found if isinstance(found, Mapping) else {}

    def _merged(self, schema: Schema) -> Schema:
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in map(self._resolve, schema["allOf"]):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged |= {**part, "properties": properties, "required": required}
        return merged

    def _first_branch(self, branches: list[Schema]) -> Schema:
        # `anyOf: [null, X]` is how an optional X is spelt: show the X.
        return next((b for b in branches if b.get("type") != "null"), branches[0])

    def _by_type(self, schema: Schema, depth: int, name: str) -> Any:
        match self._type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth, name)
            case "string":
                return self._string(schema, name)
            case "integer":
                return self._number(schema)
            case "number":
                return float(self._number(schema))
            case "boolean":
                return True
            case _:
                return None

    def _type(self, schema: Schema) -> str:
        declared = schema.get("type")
        if isinstance(declared, list):
            return next((kind for kind in declared if kind != "null"), "null")
        if declared is None:
            return "object" if "properties" in schema else "string"
        return str(declared)

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        return {
            name: self.make(sub, depth + 1, name)
            for name, sub in schema.get("properties", {}).items()
            if depth < MAX_DEPTH and (depth < 2 or name in required)
        }

    def _array(self, schema: Schema, depth: int, name: str) -> list[Any]:
        least = schema.get("minItems", 1 if depth < MAX_DEPTH // 2 else 0)
        return [self.make(schema.get("items", True), depth + 1, name) for _ in range(least)]

    def _string(self, schema: Schema, name: str) -> str:
        text = FORMATS.get(schema.get("format", "")) or self.words.get(name) or name or "example"
        padded = text.ljust(schema.get("minLength", 0), ".")
        return padded[: schema.get("maxLength", len(padded))]

    def _number(self, schema: Schema) -> int:
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", max(low + 1, 1)))
        step = schema.get("multipleOf", 1)
        for number in (1, int(low) + 1, int(low), int(high)):
            if self._fits(schema, number) and number % step == 0:
                return number
        return int(-(-low // step) * step)

    def _fits(self, schema: Schema, number: int) -> bool:
        return bool(
            number >= schema.get("minimum", number)
            and number <= schema.get("maximum", number)
            and number > schema.get("exclusiveMinimum", number - 1)
            and number < schema.get("exclusiveMaximum", number + 1)
        )
