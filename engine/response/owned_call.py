"""Calls of the tools that the gateway runs, whatever item shows them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from engine.api.events import EventWriter
from engine.api.json import encode
from engine.context.owned_calls import call_and_output
from engine.context.tool_names import ToolKey
from engine.ports import StoredItem, ToolOutcome
from engine.response.call_terms import CallTerms
from engine.response.open_items import Item, OpenCall


class OpenOwnedCall(OpenCall):
    """Open until its outcome is known, beside the items after it.

    `shown` is the function's name that the model called; the client does not see it. `request_id` is the
    request for consent that it was made for. Ids begin with `prefix`.
    """

    prefix: ClassVar[str]

    def __init__(
        self,
        events: EventWriter,
        item_id: str,
        index: int,
        *,
        shown: str,
        key: ToolKey,
        terms: CallTerms,
        request_id: str | None = None,
    ) -> None:
        super().__init__(events, item_id, index)
        self.key = key
        self.request_id = request_id
        self._shown = shown
        self._terms = terms

    @abstractmethod
    def whole(self) -> bytes:
        """Return the events that tell that its arguments are whole and it is being made."""

    @abstractmethod
    def ended(self, outcome: ToolOutcome) -> tuple[bytes, StoredItem]:
        """Return the closing events, and the item with what the model is told of the call (rule M4)."""

    def given_up(self) -> tuple[bytes, StoredItem]:
        """Return the closing events of a call whose outcome nobody will know; no model is told of it."""
        done, item = self.closed("incomplete")
        return done, self._stored(item, None)

    def _stored(self, item: Item, sent: bytes | None, call_id: str | None = None) -> StoredItem:
        return StoredItem(self.id, self.kind, encode(item), sent, call_id)

    def _pair(self, arguments: str, outcome: ToolOutcome) -> bytes:
        return call_and_output(self.id, self._shown, arguments, outcome.text, outcome.images)
