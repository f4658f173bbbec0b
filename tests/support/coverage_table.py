"""docs/coverage.md: every call of the OpenAI SDK beside the route that answers it (`make docs`).

Both sides are read from code: the SDK's own source, and `extproc.routes`.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import msgspec

from extproc.routes import ROUTES, Operation

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"
_BEGIN = "<!-- coverage: made from extproc/routes.py and the OpenAI SDK by `make docs` -->\n"
_END = "<!-- /coverage -->"

# The parts of the SDK that a Responses API of one's own is about; the others pass through.
STATEFUL = ("responses", "conversations", "files", "uploads", "vector_stores", "containers")
_METHODS = {
    "_get": "GET",
    "_post": "POST",
    "_delete": "DELETE",
    "_get_api_list": "GET",
}
Shape = tuple[str | None, ...]


class SdkCall(msgspec.Struct, frozen=True):
    """A method of the SDK: `responses.create`, and what it sends."""

    name: str
    method: str
    path: str

    @property
    def shape(self) -> Shape:
        """The segments of the path, None for an id."""
        parts = self.path.strip("/").split("/")
        return tuple(None if part.startswith("{") else part for part in parts)


def sdk_calls() -> list[SdkCall]:
    """Return all calls of the stateful part of the installed SDK, in the order of their names."""
    spec = importlib.util.find_spec("openai")
    assert spec is not None
    assert spec.origin is not None
    resources = Path(spec.origin).parent / "resources"
    found: set[SdkCall] = set()
    for part in STATEFUL:
        place = resources / part
        files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        for file in files:
            if file.name != "__init__.py":
                found.update(_calls(file, file.relative_to(resources).with_suffix("").parts))
    return sorted(found, key=lambda call: call.name)


def table() -> str:
    """Return a row for each call of the SDK, and one for each route that the SDK does not have."""
    ours = {(method, segments): operation for method, segments, operation in ROUTES}
    calls = sdk_calls()
    rows = [
        f"| `{call.method} /v1{call.path}` | `client.{call.name}` | {_answer(call, ours)} |"
        for call in calls
    ]
    known = {(call.method, call.shape) for call in calls}
    extra = [
        f"| `{method} /v1/{'/'.join('{id}' if s is None else s for s in segments)}` | | Holdfast's own |"
        for method, segments, _ in ROUTES
        if (method, segments) not in known
    ]
    return "\n".join(["| request | SDK | answered by |", "|---|---|---|", *rows, *extra, ""])


def with_table(text: str) -> str:
    """Return the document with the table in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table()}{_END}{after}"


def _answer(call: SdkCall, ours: dict[tuple[str, Shape], Operation]) -> str:
    return "Holdfast" if (call.method, call.shape) in ours else "the model server, if it can"


def _calls(file: Path, place: tuple[str, ...]) -> Iterator[SdkCall]:
    owner = ".".join(dict.fromkeys(place))
    for each in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(each, ast.ClassDef) and not each.name.startswith("Async"):
            for function in each.body:
                if isinstance(function, ast.FunctionDef):
                    yield from _sent(function, f"{owner}.{function.name}")


def _sent(function: ast.FunctionDef, name: str) -> Iterator[SdkCall]:
    for node in ast.walk(function):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr in _METHODS and (path := _path(node)) is not None:
            yield SdkCall(name, _method(node, node.func.attr), path)


def _method(node: ast.Call, verb: str) -> str:
    for keyword in node.keywords:
        if keyword.arg == "method" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value).upper()
    return _METHODS[verb]


def _path(node: ast.Call) -> str | None:
    first = node.args[0] if node.args else None
    if isinstance(first, ast.Call) and first.args:
        first = first.args[0]
    return str(first.value) if isinstance(first, ast.Constant) else None


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
