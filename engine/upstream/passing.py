"""Items of tools that a model server runs itself, on their way through a turn (rules R4, R5, T1).

A server's ids and indexes are good enough to tell what belongs together and for nothing else. What is
begun is ended, by the terminal object if the stream forgot to; what the stream left out altogether is
supplied by it too. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from engine.api.upstream_items import belongs, event_tail, is_passed, item_tail
from engine.response.inputs import Content, UpstreamEnded, UpstreamEvent, UpstreamStarted
from engine.upstream.frames import decoded

Json = Mapping[str, object]

_object: msgspec.json.Decoder[Json] = msgspec.json.Decoder(dict[str, object])
_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"
_TERMINAL = ("response.completed", "response.incomplete")


class Passing:
    """Of one turn; items go by keys of our own."""

    def __init__(self) -> None:
        self._live: dict[str, tuple[str, Json]] = {}
        """Key -> type, and what the server named it by."""
        self._ended: set[object] = set()
        self._begun: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._terminal: list[object] = []

    def receive(self, kind: str, data: bytes) -> list[Content] | None:
        """Take an event's data; None if it is none of these. Raises DecodeError, UnicodeDecodeError."""
        if kind in _TERMINAL:
            response = decoded(_object, data).get("response")
            self.take_whole(response if isinstance(response, dict) else {})
            return None
        if kind in (_ADDED, _DONE):
            frame = decoded(_object, data)
            item = frame.get("item")
            if not isinstance(item, dict) or not is_passed(item.get("type")):
                return None
            name = _names(item.get("id"), frame.get("output_index"))
            return self._begin(item, name) if kind == _ADDED else self._end(item, name)
        for one, _ in self._live.values():
            if belongs(kind, one):
                return self._event(kind, decoded(_object, data))
        return None

    def take_whole(self, response: Json) -> None:
        """Take the terminal object."""
        output = response.get("output")
        self._terminal = output if isinstance(output, list) else []

    def owed(self, place: int) -> list[Content]:
        """Return what the stream left out of the terminal output's item at `place`."""
        item = self._terminal[place] if place < len(self._terminal) else None
        if not isinstance(item, dict) or not is_passed(item.get("type")):
            return []
        kind = str(item["type"])
        self._told[kind] += 1
        if self._told[kind] > self._begun[kind]:
            return self._whole(item)
        eldest = [key for key, (one, _) in self._live.items() if one == kind]
        # Those that have ended stand before those that have not.
        open_from = self._begun[kind] - len(eldest)
        return self._close(eldest[0], item) if eldest and self._told[kind] > open_from else []

    def _begin(self, item: Json, name: Json) -> list[Content]:
        if self._find(str(item["type"]), name, certain=True) is not None:
            return []
        kind = str(item["type"])
        key = f"{kind} {self._begun[kind]}"
        self._begun[kind] += 1
        self._live[key] = (kind, name)
        return [UpstreamStarted(key, kind, item_tail(item, ended=False))]

    def _end(self, item: Json, name: Json) -> list[Content]:
        if name["id"] is not None and name["id"] in self._ended:
            return []
        key = self._find(str(item["type"]), name)
        self._ended.add(name["id"])
        return self._whole(item) if key is None else self._close(key, item)

    def _event(self, kind: str, frame: Json) -> list[Content]:
        name = _names(frame.get("item_id"), frame.get("output_index"))
        fitting = {one for one, _ in self._live.values() if belongs(kind, one)}
        # `mcp_call_…` begins like `mcp_call`; the longest type that fits is meant.
        key = self._find(max(fitting, key=len), name)
        return [] if key is None else [UpstreamEvent(key, kind, event_tail(frame))]

    def _find(self, kind: str, name: Json, *, certain: bool = False) -> str | None:
        """Return the open item that is meant: by its id, else by its index, else the only one of its type."""
        live = {key: known for key, (one, known) in self._live.items() if one == kind}
        for by in ("id", "output_index"):
            for key, known in live.items():
                if name[by] is not None and known[by] == name[by]:
                    return key
            if certain:
                return None
        return next(iter(live)) if len(live) == 1 else None

    def _whole(self, item: Json) -> list[Content]:
        begun = self._begin(item, _names(None, None))
        return begun + self._close(next(reversed(self._live)), item)

    def _close(self, key: str, item: Json) -> list[Content]:
        del self._live[key]
        return [UpstreamEnded(key, item_tail(item, ended=True))]


def _names(item_id: object, index: object) -> Json:
    return {"id": item_id, "output_index": index}
