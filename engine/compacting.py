"""`POST /v1/responses/compact`: a conversation as its user's messages and one sealed summary.

Nothing is stored: the client sends the output as input, in the place of what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from engine.account import Account
from engine.answers import Answer
from engine.api.contexts import parse_compact
from engine.api.items import require_pairs
from engine.api.json import encode
from engine.api.lists import no_parameters
from engine.api.response_object import Usage
from engine.context.compacted import COMPACTION, behind_covered, pack, summary_message
from engine.context.seals import Seals
from engine.gathering import Gathered, gather
from engine.ids import RANDOM_BYTES, ItemIds, response_id
from engine.intake import Caller
from engine.limits import Limits
from engine.lines import Lines
from engine.ports import Clock, Reply, Sealing, Store, StoredItem
from engine.references import Attach
from engine.summaries import Summaries
from engine.upstream.choice import Choice


class Compacting:
    """The operation; `lines` as for responses."""

    def __init__(
        self,
        store: Store,
        summaries: Summaries,
        choice: Choice,
        *,
        lines: Lines,
        attach: Attach,
        sealing: Sealing,
        limits: Limits,
        clock: Clock,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._summaries = summaries
        self._choice = choice
        self._lines = lines
        self._attach = attach
        self._sealing = sealing
        self._limits = limits
        self._clock = clock
        self._randomness = randomness

    async def compact(self, caller: Caller, body: bytes, query: str, reply: Reply) -> None:
        """Answer with the compacted conversation; what a response is refused for is refused here too."""
        no_parameters(query)
        created_at = self._clock()
        own_id = response_id(self._randomness(RANDOM_BYTES))
        ids, seals = ItemIds(own_id), Seals(self._sealing, caller.tenant)
        request = parse_compact(body, ids, self._limits, seals.unseal)
        # Without a key there is no summary to be asked for.
        seals.seal("", COMPACTION)
        with self._lines.visit() as visit:
            found = await gather(self._store, self._attach, caller, request, visit, self._limits)
        require_pairs(found.before.history.pending, found.items)
        users = await self._said_by_users(caller.tenant, found)
        asked = self._choice.asking(request, caller.tenant)
        turn = self._summaries.turn(asked, found.replay, found.headers)
        summary = await self._summaries.summed_up(
            turn, own_id, model=request.model, tenant=caller.tenant
        )
        usage = Usage() if summary.usage is None else summary.usage
        account = Account(own_id, caller.tenant, request.model)
        account.turns = 1
        account.close("completed", summary.usage)
        reply.tell(account)
        sealed = seals.seal(pack([summary_message(summary.text)], covers=False), COMPACTION)
        compacted = {"id": ids.mint("cmp"), "type": COMPACTION, "encrypted_content": sealed}
        shown = {
            "id": own_id,
            "object": "response.compaction",
            "created_at": created_at,
            "output": [*map(msgspec.Raw, users), compacted],
            "usage": usage.shown(),
        }
        await reply.answer(Answer(200, encode(shown)))

    async def _said_by_users(self, tenant: str, found: Gathered) -> list[bytes]:
        """Return the users' messages, behind what an earlier summary covers, as the API shows them."""
        wanted = [i.position for i in found.history if i.type == "message" and not i.output]
        end = found.before.after
        stored = {} if end is None else await self._store.read_items(tenant, end, wanted)
        before = [stored[position] for position in wanted if position in stored]
        return _by_users([*before, *behind_covered(found.items)])


class _Message(msgspec.Struct, frozen=True):
    role: str = ""


_read = msgspec.json.Decoder(_Message).decode


def _by_users(items: Sequence[StoredItem]) -> list[bytes]:
    messages = (item.item for item in items if item.type == "message")
    return [message for message in messages if _read(message).role == "user"]
