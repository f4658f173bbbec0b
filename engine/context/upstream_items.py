"""What a model is told in later turns of the tools that its server ran (rule M4).

No server takes these items back as input, its own neither, so a call whose result is known becomes a
function call and its output. One whose result only the server saw is left out: what it led to is in the
message behind it, and an empty output would be a lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from engine.api.json import encode
from engine.context.replay import replay

Item = Mapping[str, object]
_Pair = tuple[str, str, str]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def replay_pair(item: Item, call_id: str) -> bytes | None:
    """Return call and output as two JSON values with a comma between them; None where nothing is sent."""
    read = _READERS.get(str(item["type"]))
    pair = None if read is None else read(item)
    if pair is None:
        return None
    name, arguments, output = pair
    call = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    answer = {"type": "function_call_output", "call_id": call_id, "output": output}
    return b",".join(part for part in map(replay, (call, answer)) if part is not None)


def _mcp_call(item: Item) -> _Pair | None:
    result = item.get("output") or item.get("error")
    name = str(item.get("name"))
    if result is None or not _NAME.fullmatch(name):
        return None
    return name, str(item.get("arguments") or "{}"), _text(result)


def _code(item: Item) -> _Pair | None:
    logs = [str(one["logs"]) for one in _objects(item.get("outputs")) if one.get("logs")]
    if not logs:
        return None
    return "code_interpreter", encode({"code": item.get("code")}).decode(), "\n".join(logs)


def _search(name: str) -> Callable[[Item], _Pair | None]:
    def read(item: Item) -> _Pair | None:
        results = item.get("results")
        if not results:
            return None
        asked = item.get("action") if name == "web_search" else {"queries": item.get("queries")}
        return name, encode(asked or {}).decode(), _text(results)

    return read


def _objects(value: object) -> Sequence[Item]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else encode(value).decode()


_READERS: Mapping[str, Callable[[Item], _Pair | None]] = {
    "mcp_call": _mcp_call,
    "code_interpreter_call": _code,
    "web_search_call": _search("web_search"),
    "file_search_call": _search("file_search"),
}
