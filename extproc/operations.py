"""Carries out a matched operation; the adapters differ only in where request and reply come from."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from engine.answers import Answer, error_answer
from engine.compacting import Compacting
from engine.connectors import Connectors
from engine.conversations import Conversations
from engine.errors import EngineError
from engine.file_batches import FileBatches
from engine.files import Files
from engine.intake import Caller
from engine.ports import ModelClient, Reply
from engine.prompts import Prompts
from engine.responses import Responses
from engine.store_files import StoreFiles
from engine.token_counts import TokenCounts
from engine.uploads import Uploads
from engine.vector_stores import VectorStores
from extproc.routes import Match, Operation

_log = logging.getLogger(__name__)

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    # Buffering proxies before Envoy (nginx among them) pass events on at once.
    ("x-accel-buffering", "no"),
)
"""The head of every stream that we answer with."""


class Endpoints(msgspec.Struct, frozen=True):
    """All that can be asked of an engine."""

    responses: Responses
    conversations: Conversations
    connectors: Connectors
    prompts: Prompts
    files: Files
    uploads: Uploads
    compacting: Compacting
    counts: TokenCounts
    vector_stores: VectorStores
    store_files: StoreFiles
    file_batches: FileBatches


_Whole = Callable[[Endpoints, Match, Caller, bytes], Awaitable[Answer]]

# What is answered by one whole answer: endpoints, match, caller and body to that.
_WHOLE: Mapping[Operation, _Whole] = {
    Operation.LIST: lambda e, m, c, _: e.responses.list(c, m.query),
    Operation.DELETE: lambda e, m, c, _: e.responses.delete(c, m.id, m.query),
    Operation.CANCEL: lambda e, m, c, _: e.responses.cancel(c, m.id, m.query),
    Operation.COUNT_TOKENS: lambda e, m, c, body: e.counts.count(c, body, m.query),
    Operation.INPUT_ITEMS: lambda e, m, c, _: e.responses.list_input_items(c, m.id, m.query),
    Operation.CREATE_CONVERSATION: lambda e, m, c, body: e.conversations.create(c, body, m.query),
    Operation.LIST_CONVERSATIONS: lambda e, m, c, _: e.conversations.list(c, m.query),
    Operation.RETRIEVE_CONVERSATION: lambda e, m, c, _: e.conversations.retrieve(c, m.id, m.query),
    Operation.UPDATE_CONVERSATION: lambda e, m, c, body: e.conversations.update(
        c, m.id, body, m.query
    ),
    Operation.DELETE_CONVERSATION: lambda e, m, c, _: e.conversations.delete(c, m.id, m.query),
    Operation.ADD_ITEMS: lambda e, m, c, body: e.conversations.add_items(c, m.id, body, m.query),
    Operation.LIST_ITEMS: lambda e, m, c, _: e.conversations.list_items(c, m.id, m.query),
    Operation.RETRIEVE_ITEM: lambda e, m, c, _: e.conversations.retrieve_item(
        c, m.id, m.item, m.query
    ),
    Operation.DELETE_ITEM: lambda e, m, c, _: e.conversations.delete_item(c, m.id, m.item, m.query),
    Operation.CREATE_CONNECTOR: lambda e, m, c, body: e.connectors.create(c, body, m.query),
    Operation.LIST_CONNECTORS: lambda e, m, c, _: e.connectors.list(c, m.query),
    Operation.RETRIEVE_CONNECTOR: lambda e, m, c, _: e.connectors.retrieve(c, m.id, m.query),
    Operation.UPDATE_CONNECTOR: lambda e, m, c, body: e.connectors.update(c, m.id, body, m.query),
    Operation.DELETE_CONNECTOR: lambda e, m, c, _: e.connectors.delete(c, m.id, m.query),
    Operation.CONNECTOR_TOOLS: lambda e, m, c, _: e.connectors.list_tools(c, m.id, m.query),
    Operation.CREATE_PROMPT: lambda e, m, c, body: e.prompts.create(c, body, m.query),
    Operation.LIST_PROMPTS: lambda e, m, c, _: e.prompts.list(c, m.query),
    Operation.RETRIEVE_PROMPT: lambda e, m, c, _: e.prompts.retrieve(c, m.id, m.query),
    Operation.UPDATE_PROMPT: lambda e, m, c, body: e.prompts.update(c, m.id, body, m.query),
    Operation.DELETE_PROMPT: lambda e, m, c, _: e.prompts.delete(c, m.id, m.query),
    Operation.ADD_PROMPT_VERSION: lambda e, m, c, body: e.prompts.add_version(
        c, m.id, body, m.query
    ),
    Operation.PROMPT_VERSIONS: lambda e, m, c, _: e.prompts.list_versions(c, m.id, m.query),
    Operation.LIST_FILES: lambda e, m, c, _: e.files.list(c, m.query),
    Operation.RETRIEVE_FILE: lambda e, m, c, _: e.files.retrieve(c, m.id, m.query),
    Operation.DELETE_FILE: lambda e, m, c, _: e.files.delete(c, m.id, m.query),
    Operation.CREATE_UPLOAD: lambda e, m, c, body: e.uploads.create(c, body, m.query),
    Operation.COMPLETE_UPLOAD: lambda e, m, c, body: e.uploads.complete(c, m.id, body, m.query),
    Operation.CANCEL_UPLOAD: lambda e, m, c, _: e.uploads.cancel(c, m.id, m.query),
    Operation.CREATE_VECTOR_STORE: lambda e, m, c, body: e.vector_stores.create(c, body, m.query),
    Operation.LIST_VECTOR_STORES: lambda e, m, c, _: e.vector_stores.list(c, m.query),
    Operation.RETRIEVE_VECTOR_STORE: lambda e, m, c, _: e.vector_stores.retrieve(c, m.id, m.query),
    Operation.UPDATE_VECTOR_STORE: lambda e, m, c, body: e.vector_stores.update(
        c, m.id, body, m.query
    ),
    Operation.DELETE_VECTOR_STORE: lambda e, m, c, _: e.vector_stores.delete(c, m.id, m.query),
    Operation.SEARCH_VECTOR_STORE: lambda e, m, c, body: e.vector_stores.search(
        c, m.id, body, m.query
    ),
    Operation.ATTACH_FILE: lambda e, m, c, body: e.store_files.create(c, m.id, body, m.query),
    Operation.LIST_ATTACHED: lambda e, m, c, _: e.store_files.list(c, m.id, m.query),
    Operation.RETRIEVE_ATTACHED: lambda e, m, c, _: e.store_files.retrieve(
        c, m.id, m.item, m.query
    ),
    Operation.LABEL_ATTACHED: lambda e, m, c, body: e.store_files.update(
        c, m.id, m.item, body, m.query
    ),
    Operation.DETACH_FILE: lambda e, m, c, _: e.store_files.delete(c, m.id, m.item, m.query),
    Operation.ATTACHED_CONTENT: lambda e, m, c, _: e.store_files.content(c, m.id, m.item, m.query),
    Operation.CREATE_BATCH: lambda e, m, c, body: e.file_batches.create(c, m.id, body, m.query),
    Operation.RETRIEVE_BATCH: lambda e, m, c, _: e.file_batches.retrieve(c, m.id, m.item, m.query),
    Operation.CANCEL_BATCH: lambda e, m, c, _: e.file_batches.cancel(c, m.id, m.item, m.query),
    Operation.BATCH_FILES: lambda e, m, c, _: e.file_batches.list_files(c, m.id, m.item, m.query),
}


async def perform(
    endpoints: Endpoints,
    match: Match,
    caller: Caller,
    body: bytes,
    reply: Reply,
    *,
    model: ModelClient | None = None,
) -> None:
    """Carry out an operation and send its answer; raises EngineError where nothing was sent.

    `model` is the exchange's own way to the model server, if it has one.
    """
    if match.operation is Operation.CREATE:
        await endpoints.responses.create(caller, body, match.query, reply, model=model)
    elif match.operation is Operation.RETRIEVE:
        await endpoints.responses.retrieve(caller, match.id, match.query, reply)
    elif match.operation is Operation.COMPACT:
        await endpoints.compacting.compact(caller, body, match.query, reply)
    else:
        await reply.answer(await _WHOLE[match.operation](endpoints, match, caller, body))


async def answer_errors(work: Awaitable[None], reply: Reply) -> None:
    """Await work that may fail before anything was sent, and send the error's answer (rule R15)."""
    try:
        await work
    except EngineError as error:
        await reply.answer(error_answer(error))
    except Exception:
        _log.exception("a request failed")
        await reply.answer(error_answer(EngineError("The gateway failed; see its log.")))
