"""`rewrite_query`: a model puts what somebody asks into words that are better to search with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.affinity import HEADER, affinity, root_of
from engine.api import checks
from engine.api.json import encode, read_object
from engine.api.request import parse_create
from engine.api.searches import QUERY_LENGTH
from engine.errors import SearchTimedOut, UpstreamFailed
from engine.ids import ItemIds
from engine.intake import Caller
from engine.limits import Limits
from engine.ports import ModelClient
from engine.response.turn import TurnRequest, TurnRules
from engine.retries import RetryBudget
from engine.spoken import Spoken
from engine.together import together
from engine.upstream.choice import Choice

PROMPT = """\
Rewrite what the user asks into one query for a search engine over documents: the words that a passage with \
the answer would have, names and numbers exactly as they are, in the same language. Do not answer. \
Write the query alone, in one line."""


class Rewriting:
    """Asks `model_name`, for at most `timeout` seconds; None refuses whoever wants it (rule H1)."""

    def __init__(
        self,
        model: ModelClient,
        limits: Limits,
        choice: Choice,
        budget: RetryBudget,
        *,
        model_name: str | None,
        timeout: float = 30.0,
    ) -> None:
        self._spoken = Spoken(model, limits, budget)
        self._limits = limits
        self._choice = choice
        self._model_name = model_name
        self._timeout = timeout

    async def rewritten(self, caller: Caller, queries: Sequence[str]) -> list[str]:
        """Return each query in better words.

        Raises InvalidRequest where no model is set, UpstreamRefused and UpstreamFailed, and SearchTimedOut.
        """
        if self._model_name is None:
            raise checks.unsupported(
                "rewrite_query",
                "no model is set that rewrites queries (HOLDFAST_RETRIEVAL__REWRITE_MODEL, "
                "retrieval.rewrite_model).",
            )
        name = self._model_name
        try:
            async with asyncio.timeout(self._timeout):
                return await together(self._rewritten(caller, name, query) for query in queries)
        except TimeoutError as error:
            raise SearchTimedOut(self._timeout) from error

    async def _rewritten(self, caller: Caller, model_name: str, query: str) -> str:
        text, _ = await self._spoken.text(self._turn(caller, model_name, query), "a search")
        words = " ".join(text.split())[:QUERY_LENGTH]
        if not words:
            raise UpstreamFailed(f"The model '{model_name}' has written no query.")
        return words

    def _turn(self, caller: Caller, model_name: str, query: str) -> TurnRequest:
        fields = read_object(
            encode({"model": model_name, "instructions": PROMPT, "input": query, "store": False})
        )
        request = parse_create(fields, ItemIds("resp_search"), self._limits)
        items = [encode({"role": "user", "content": query})]
        dialect = self._choice.dialect(model_name)
        body = dialect.encode(self._choice.asking(request, caller.tenant), items)
        root = affinity(caller.tenant, root_of(None, items))
        headers = {**caller.model_headers, HEADER: root}
        return TurnRequest(body, headers, TurnRules(declared=()), dialect.name)
