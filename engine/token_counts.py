"""`POST /v1/responses/input_tokens`: how many tokens the first turn of a response would have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.answers import Answer
from engine.api.contexts import parse_count
from engine.api.json import encode
from engine.api.lists import no_parameters
from engine.api.request import CreateRequest
from engine.context.seals import Seals
from engine.counting import Counting, cannot_count
from engine.gathering import gather
from engine.ids import ItemIds
from engine.intake import Caller
from engine.limits import Limits
from engine.lines import Lines
from engine.planning import asked_for
from engine.ports import Sealing, Store
from engine.references import Attach
from engine.response.agenda import Agenda
from engine.toolbox import Toolbox
from engine.upstream.choice import Choice


class TokenCounts:
    """The operation; `lines` as for responses."""

    def __init__(
        self,
        store: Store,
        counting: Counting,
        choice: Choice,
        *,
        lines: Lines,
        attach: Attach,
        tools: Toolbox,
        sealing: Sealing,
        limits: Limits,
    ) -> None:
        self._store = store
        self._counting = counting
        self._choice = choice
        self._lines = lines
        self._attach = attach
        self._tools = tools
        self._sealing = sealing
        self._limits = limits

    async def count(self, caller: Caller, body: bytes, query: str) -> Answer:
        """Return the count of the whole context; an estimate says so (`estimated`)."""
        no_parameters(query)
        unseal = Seals(self._sealing, caller.tenant).unseal
        request = parse_count(body, ItemIds(""), self._limits, self._tools.policy, unseal)
        request = await self._tools.resolved(request, caller.tenant)
        with self._lines.visit() as visit:
            found = await gather(self._store, self._attach, caller, request, visit, self._limits)
        owned = await self._owned(request, caller.tenant, found.headers)
        asked = self._choice.asking(request, caller.tenant)
        told = await self._counting.counted(asked, found.replay, found.headers, owned)
        if told is None:
            raise cannot_count(None, "Counting input tokens")
        shown = {"object": "response.input_tokens", "input_tokens": told.count}
        return Answer(200, encode({**shown, "estimated": True} if told.estimated else shown))

    async def _owned(
        self, request: CreateRequest, tenant: str, headers: Mapping[str, str]
    ) -> Sequence[dict[str, object]]:
        """Return the gateway's tools as the model is shown them, as far as they can be listed."""
        dialect = self._choice.dialect(request.model)
        asked = asked_for(request, [], headers, self._limits, dialect)
        if not isinstance(asked, Agenda):
            return ()
        listed = await self._tools.list(self._tools.open(request, tenant))
        return asked.tools(listed.listings).sent
