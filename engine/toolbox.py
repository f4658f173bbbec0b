"""The tools that the gateway runs, of all runs of a worker: opened, listed, called, and bounded (rule T2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from engine.account import Account
from engine.api.file_search import FILE_SEARCH, FileSearchTool
from engine.api.json import encode
from engine.api.mcp import McpTool
from engine.api.ownership import NO_POLICY, ToolPolicy
from engine.api.request import CreateRequest
from engine.api.tools import OwnedTool
from engine.errors import ToolsUnavailable
from engine.fair_slots import FairSlots
from engine.file_search import FileSearch
from engine.limits import Limits
from engine.ports import (
    OpenProvided,
    ToolDeclaration,
    ToolOutcome,
    ToolProvider,
    TracedProvider,
)
from engine.ports.meters import NO_METERS, Meters, ToolEnd
from engine.registry import Registry
from engine.response.agenda import Listing
from engine.response.effects import ToolCall
from engine.response.inputs import ToolEnded, ToolsListed

_log = logging.getLogger(__name__)

OpenProvider = Callable[[McpTool, str, str], ToolProvider]
"""Gives the provider of a declared server, by declaration, its path in the request, and tenant.

Connects to nothing; raises InvalidRequest for what must not be reached.
"""

# A provider keeps its own deadline; one that does not is given up so many seconds later.
_GRACE = 1.0


class Toolbox:
    """Runs at most `limits.tool_calls` calls at a time, over all responses of this worker.

    The next one is that of the tenant that has the fewest under way.
    """

    def __init__(
        self,
        open_provider: OpenProvider,
        limits: Limits,
        registry: Registry,
        *,
        provided: Mapping[str, OpenProvided] | None = None,
        policy: ToolPolicy = NO_POLICY,
        file_search: FileSearch | None = None,
        meters: Meters = NO_METERS,
    ) -> None:
        """`provided` are what the operator added, by type; `policy` says what is the model server's.

        `file_search` is None where no files can be searched.
        """
        self._provided = provided or {}
        self._file_search = file_search
        self.policy = msgspec.structs.replace(
            policy, provided=frozenset(self._provided), file_search=file_search is not None
        )
        self._meters = meters
        self._open_provider = open_provider
        self._registry = registry
        self._limits = limits
        self._slots = FairSlots(limits.tool_calls)

    async def resolved(self, request: CreateRequest, tenant: str) -> CreateRequest:
        """Return the request with its connectors found; raises InvalidRequest, StorageUnavailable."""
        return await self._registry.resolved(request, tenant)

    async def check(self, request: CreateRequest, tenant: str) -> None:
        """Refuse what tools name that is not there; raises NotFound, StorageUnavailable.

        Asked when a request is accepted; what goes missing later is a failure that the model is told of.
        """
        for param, tool in request.owned:
            if isinstance(tool, FileSearchTool):
                assert self._file_search is not None, "the policy owns it"
                await self._file_search.check(tool, param, tenant)

    def open(self, request: CreateRequest, tenant: str) -> tuple[ToolProvider, ...]:
        """Return the providers of a resolved request's tools; raises InvalidRequest, TargetRefused."""
        return tuple(self._opened(tool, param, tenant) for param, tool in request.owned)

    def _opened(self, tool: OwnedTool, param: str, tenant: str) -> ToolProvider:
        if isinstance(tool, McpTool):
            return self._open_provider(tool, param, tenant)
        if isinstance(tool, FileSearchTool):
            assert self._file_search is not None, "the policy owns it"
            return self._file_search.open(tool, tenant)
        declared = ToolDeclaration(label=tool.kind, fields=tool.fields, param=param, tenant=tenant)
        return self._provided[tool.kind](declared)

    async def list(self, providers: Sequence[ToolProvider]) -> ToolsListed:
        """Ask all providers at once what they offer; a failure costs only its own tools (rule T5)."""
        return ToolsListed(tuple(await asyncio.gather(*map(self._listing, providers))))

    async def run(
        self,
        providers: Sequence[ToolProvider],
        calls: Sequence[ToolCall],
        ended: Callable[[ToolEnded], Awaitable[None]],
        account: Account,
    ) -> None:
        """Run the calls side by side and tell of each as it ends; cancelled, it gives up the others."""
        by_label = {provider.label: provider for provider in providers}
        own = asyncio.Semaphore(self._limits.response_tool_calls)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._one(by_label, call, own, account)) for call in calls]
        try:
            for ending in asyncio.as_completed(tasks):
                await ended(await ending)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listing(self, provider: ToolProvider) -> Listing:
        seconds = self._limits.tool_list
        try:
            async with asyncio.timeout(seconds + _GRACE):
                return Listing(provider.label, await provider.definitions(timeout=seconds))
        except ToolsUnavailable as error:
            return Listing(provider.label, error=error.message)
        except TimeoutError:
            why = f"No answer came within {seconds:g} seconds."
        except Exception:
            _log.exception("the tools of a provider could not be listed")
            why = "The gateway failed; see its log."
        return Listing(
            provider.label, error=f"The tools of '{provider.label}' cannot be listed. {why}"
        )

    async def _one(
        self,
        providers: dict[str, ToolProvider],
        call: ToolCall,
        own: asyncio.Semaphore,
        account: Account,
    ) -> ToolEnded:
        if call.refused is not None:
            self._meters.tool_call(self._kind(call), "refused", 0)
            return ToolEnded(call.item_id, _failure(f"The call was not made: {call.refused}"))
        provider = providers.get(call.label)
        if provider is None:
            self._meters.tool_call(self._kind(call), "refused", 0)
            return ToolEnded(call.item_id, _failure("There is no such tool any more."))
        async with own, self._slots.slot(account.tenant):
            return ToolEnded(call.item_id, await self._told(provider, call, account))

    async def _told(self, provider: ToolProvider, call: ToolCall, account: Account) -> ToolOutcome:
        with account.call(call.label, call.name, call.item_id) as step:
            span = step.span
            if span.content:
                span.put("gen_ai.tool.call.arguments", call.arguments.decode("utf-8", "replace"))
            if isinstance(provider, TracedProvider) and (carried := span.headers):
                provider = provider.within(carried)
            outcome = await self._outcome(provider, call)
            if span.content:
                span.put("gen_ai.tool.call.result", _result(outcome))
            if outcome.failed:
                span.fail("tool_error")
            return outcome

    async def _outcome(self, provider: ToolProvider, call: ToolCall) -> ToolOutcome:
        seconds = self._limits.tool_call
        clock = asyncio.get_running_loop().time
        began = clock()
        end: ToolEnd = "error"
        try:
            async with asyncio.timeout(seconds + _GRACE):
                outcome = await provider.call(call.name, call.arguments, timeout=seconds)
            if outcome.error is None:
                end = "ok"
            elif clock() - began >= seconds:
                # It has kept its deadline by itself.
                end = "timeout"
        except TimeoutError:
            end = "timeout"
            outcome = _failure(f"No answer came within {seconds:g} seconds.")
        except Exception:
            _log.exception("a call of a tool broke")
            outcome = _failure("The gateway failed; see its log.")
        self._meters.tool_call(self._kind(call), end, clock() - began)
        return outcome

    def _kind(self, call: ToolCall) -> str:
        """Return the type of the tool: the label of a server is its client's to choose."""
        own = call.label in self._provided or call.label == FILE_SEARCH
        return call.label if own else "mcp"


def _result(outcome: ToolOutcome) -> str:
    """Return what a call has brought: its text, or the fields of its item."""
    told = [outcome.text] if outcome.text else []
    told += [value.decode("utf-8", "replace") for _, value in outcome.fields]
    return "\n".join(told)


def _failure(why: str) -> ToolOutcome:
    error = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": why}]}
    return ToolOutcome(text=why, error=encode(error))
