"""Prompt templates as operations (an extension: OpenAI keeps them behind its dashboard), and their use.

`prompt: {id, version, variables}` of a create request is expanded before the request is checked: what is run,
stored and run again after a crash is the whole request, whatever becomes of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.answers import Answer
from engine.api.json import encode, read_value
from engine.api.lists import list_object, no_parameters, parse_list, parse_version_query
from engine.api.ownership import ToolPolicy
from engine.api.prompts import (
    expand,
    parse_new,
    parse_new_version,
    parse_update,
    parse_version,
    parse_wanted,
    read_head,
    shown,
    shown_version,
    updated,
)
from engine.api.request import Fields
from engine.errors import InvalidRequest, NotFound
from engine.ids import RANDOM_BYTES
from engine.intake import Caller
from engine.limits import Limits
from engine.ports import PromptStore, StoredPrompt


class Prompts:
    """The operations on prompts, for one store."""

    def __init__(
        self,
        store: PromptStore,
        *,
        randomness: Callable[[int], bytes],
        limits: Limits,
        policy: ToolPolicy,
    ) -> None:
        """`policy` says whose the tools of templates are."""
        self._store = store
        self._randomness = randomness
        self._limits = limits
        self._policy = policy

    async def create(self, caller: Caller, body: bytes, query: str) -> Answer:
        """`POST /v1/prompts`: a prompt with its first version."""
        no_parameters(query)
        head, first = parse_new(body, self._limits, self._policy)
        prompt_id = f"pmpt_{self._randomness(RANDOM_BYTES).hex()}"
        await self._store.add_prompt(caller.tenant, prompt_id, encode(head), encode(first))
        return await self._answer(caller.tenant, prompt_id)

    async def add_version(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/prompts/{id}/versions`: a new version, the default one unless told otherwise."""
        no_parameters(query)
        version, default = parse_new_version(body, self._limits, self._policy)
        nonce = self._randomness(RANDOM_BYTES)
        number = await self._store.add_prompt_version(
            caller.tenant, wanted, encode(version), nonce=nonce, default=default
        )
        if number is None:
            raise _not_found(wanted)
        return await self._answer(caller.tenant, wanted, number)

    async def update(self, caller: Caller, wanted: str, body: bytes, query: str) -> Answer:
        """`POST /v1/prompts/{id}`: another default version, name or metadata."""
        no_parameters(query)
        changes, default = parse_update(body)
        prompt = await self._stored(caller.tenant, wanted, None)
        head = encode(updated(read_head(prompt.head), changes)) if changes else None
        if not await self._store.update_prompt(
            caller.tenant, wanted, head=head, default_version=default
        ):
            raise _no_version(wanted, default, "default_version")
        return await self._answer(caller.tenant, wanted)

    async def retrieve(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/prompts/{id}`, with `version` at that one, otherwise at the default."""
        return await self._answer(caller.tenant, wanted, parse_version_query(query))

    async def list(self, caller: Caller, query: str) -> Answer:
        """`GET /v1/prompts`: each at its default version, newest first by default."""
        asked = parse_list(query, ("limit", "after", "order"))
        page = await self._store.list_prompts(
            caller.tenant, limit=asked.limit, after=asked.after, order=asked.order
        )
        ids = [prompt.id for prompt in page.prompts]
        return Answer(200, list_object(list(map(shown, page.prompts)), ids, has_more=page.has_more))

    async def list_versions(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`GET /v1/prompts/{id}/versions`; cursors are the numbers of versions."""
        asked = parse_list(query, ("limit", "after", "order"))
        after = None if asked.after is None else parse_version(asked.after, "after")
        page = await self._store.list_prompt_versions(
            caller.tenant, wanted, limit=asked.limit, after=after, order=asked.order
        )
        if page is None:
            raise _not_found(wanted)
        numbers = [str(prompt.version) for prompt in page.prompts]
        bodies = list(map(shown_version, page.prompts))
        return Answer(200, list_object(bodies, numbers, has_more=page.has_more))

    async def delete(self, caller: Caller, wanted: str, query: str) -> Answer:
        """`DELETE /v1/prompts/{id}`, with all versions; responses that used it keep what they were told."""
        no_parameters(query)
        if not await self._store.delete_prompt(caller.tenant, wanted):
            raise _not_found(wanted)
        return Answer(200, encode({"id": wanted, "object": "prompt", "deleted": True}))

    async def expand(self, tenant: str, request: Fields) -> Fields:
        """Return a create request with its prompt in it; as it came if it names none.

        Raises InvalidRequest whose `param` is below `prompt` (rule H1).
        """
        value = read_value(request["prompt"], "prompt") if "prompt" in request else None
        if value is None:
            return request
        wanted = parse_wanted(value)
        found = await self._store.get_prompt(tenant, wanted.id, wanted.version)
        if found is not None:
            return expand(request, wanted, found)
        if await self._store.get_prompt(tenant, wanted.id, None) is None:
            raise InvalidRequest(
                f"Prompt with id '{wanted.id}' not found.",
                param="prompt.id",
                code="prompt_not_found",
            )
        raise _no_version(wanted.id, wanted.version, "prompt.version")

    async def _answer(self, tenant: str, wanted: str, version: int | None = None) -> Answer:
        return Answer(200, shown(await self._stored(tenant, wanted, version)))

    async def _stored(self, tenant: str, wanted: str, version: int | None) -> StoredPrompt:
        stored = await self._store.get_prompt(tenant, wanted, version)
        if stored is not None:
            return stored
        if version is not None and await self._store.get_prompt(tenant, wanted, None) is not None:
            raise NotFound(f"Prompt '{wanted}' has no version {version}.")
        raise _not_found(wanted)


def _not_found(wanted: str) -> NotFound:
    return NotFound(f"Prompt with id '{wanted}' not found.")


def _no_version(wanted: str, version: int | None, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Prompt '{wanted}' has no version {version}.", param=param, code="prompt_version_not_found"
    )
