"""Input and history of a response that is not made: what its model would be sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from engine.api.request import CreateRequest
from engine.context.compacted import behind_covered, covers
from engine.continuation import Continuation, continuation
from engine.intake import Caller, first_root, sent, turn_headers, with_own_calls
from engine.limits import Limits
from engine.lines import Visit
from engine.ports import ReplayItem, Store, StoredItem
from engine.references import Attach, resolve


class Gathered(msgspec.Struct, frozen=True):
    """`replay` is what the model is sent of history (`before`) and input (`items`)."""

    before: Continuation
    items: list[StoredItem]
    replay: list[bytes]
    headers: Mapping[str, str]

    @property
    def history(self) -> Sequence[ReplayItem]:
        """What of the history is still sent: nothing, where the input covers it."""
        kept = behind_covered(self.items)
        return () if kept and covers(kept[0]) else behind_covered(self.before.items)


async def gather(
    store: Store,
    attach: Attach,
    caller: Caller,
    request: CreateRequest,
    visit: Visit,
    limits: Limits,
) -> Gathered:
    """Return it; waits for the end of a turn in a conversation.

    Raises InvalidRequest, UnknownPreviousResponse, NotFound, ConversationMoved, StorageUnavailable.
    """
    items = await resolve(store, attach, caller.tenant, request.input, limits)
    before = await continuation(store, caller.tenant, request, None, visit)
    items = with_own_calls(request, items, before.items)
    replay = sent(before.history, items, limits)
    root = before.root if before.root is not None else first_root(request, replay)
    return Gathered(before, items, replay, turn_headers(caller.model_headers, caller.tenant, root))
