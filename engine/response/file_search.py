"""`file_search_call`: its item, its events, and what the model is told of it (rules T1, T8)."""

from __future__ import annotations

import msgspec

from engine.api.file_search import CALL, RESULTS, read_queries
from engine.context.sources import Found, numbered, told
from engine.ports import StoredItem, ToolOutcome
from engine.response.inputs import ArgumentsDelta
from engine.response.notes import NO_RESULTS, Held, held_note
from engine.response.open_items import Item
from engine.response.owned_call import OpenOwnedCall

_IN_PROGRESS, _SEARCHING, _COMPLETED = (
    b"response.%b.%b" % (CALL.encode(), state)
    for state in (b"in_progress", b"searching", b"completed")
)


class OpenFileSearchCall(OpenOwnedCall):
    """A search. The client sees its queries, not the arguments; where it asked for them its results, too.

    What it does not see is in notes, so that who takes the response over need not search again.
    """

    kind = CALL
    prefix = "fs"
    family = b""

    _results = NO_RESULTS

    def opened(self) -> bytes:
        """Return `output_item.added` and `.in_progress`."""
        return super().opened() + self._events.event(_IN_PROGRESS, self._place)

    def delta(self, content: ArgumentsDelta) -> bytes:
        """Keep it: the API has no event for it."""
        self._pieces.append(content.text)
        return b""

    def whole(self) -> bytes:
        """Return `.searching`."""
        note = held_note(Held(arguments=self.arguments))
        return note + self._events.event(_SEARCHING, self._place)

    def ended(self, outcome: ToolOutcome) -> tuple[bytes, StoredItem]:
        """Return the closing events, and the item; there is no event for a failure but the last."""
        if outcome.failed:
            note = held_note(Held(text=outcome.text))
            done, item = self.closed("failed")
            return note + done, self._stored(item, self._pair(self._arguments(), outcome))
        results = msgspec.Raw(dict(outcome.fields)["results"])
        shown = RESULTS in self._terms.included
        self._results = results if shown else NO_RESULTS
        frames = held_note(Held() if shown else Held(results=results))
        frames += self._events.event(_COMPLETED, self._place)
        done, item = self.closed("completed")
        found = _read(results)
        first = self._terms.numbering.take(len(found))
        sent = self._pair(self._arguments(), ToolOutcome(text=told(found, first)))
        return frames + done, self._stored(item, sent, numbered(first, len(found)))

    def json(self, status: str) -> Item:
        """Return the call; `results` are null unless the client asked for them."""
        return {
            "id": self.id,
            "type": self.kind,
            "status": status,
            "queries": self._queries(),
            "results": self._results,
        }

    def _queries(self) -> list[str]:
        try:
            return list(read_queries(self.arguments))
        except ValueError:
            return []

    def _arguments(self) -> str:
        return self.arguments.strip() or "{}"


_read = msgspec.json.Decoder(list[Found]).decode
