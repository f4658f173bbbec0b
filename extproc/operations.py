"""Carries out a matched operation; the adapters differ only in where request and reply come from."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from engine.answers import Answer, error_answer
from engine.conversations import Conversations
from engine.errors import EngineError
from engine.intake import Caller
from engine.ports import Reply
from engine.responses import Responses
from extproc.routes import Match, Operation

_log = logging.getLogger(__name__)

STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    # Buffering proxies before Envoy (nginx among them) pass events on at once.
    ("x-accel-buffering", "no"),
)
"""The head of every stream that we answer with."""


class Api(msgspec.Struct, frozen=True):
    """What the operations are done by: one object for each resource."""

    responses: Responses
    conversations: Conversations


_Whole = Callable[[Api, Caller, Match, bytes], Awaitable[Answer]]

_WHOLE: Mapping[Operation, _Whole] = {
    Operation.LIST: lambda api, who, m, _: api.responses.list(who, m.query),
    Operation.DELETE: lambda api, who, m, _: api.responses.delete(who, m.id, m.query),
    Operation.CANCEL: lambda api, who, m, _: api.responses.cancel(who, m.id, m.query),
    Operation.INPUT_ITEMS: lambda api, who, m, _: api.responses.list_input_items(
        who, m.id, m.query
    ),
    Operation.CREATE_CONVERSATION: lambda api, who, m, body: api.conversations.create(
        who, body, m.query
    ),
    Operation.LIST_CONVERSATIONS: lambda api, who, m, _: api.conversations.list(who, m.query),
    Operation.RETRIEVE_CONVERSATION: lambda api, who, m, _: api.conversations.retrieve(
        who, m.id, m.query
    ),
    Operation.UPDATE_CONVERSATION: lambda api, who, m, body: api.conversations.update(
        who, m.id, body, m.query
    ),
    Operation.DELETE_CONVERSATION: lambda api, who, m, _: api.conversations.delete(
        who, m.id, m.query
    ),
    Operation.ADD_ITEMS: lambda api, who, m, body: api.conversations.add_items(
        who, m.id, body, m.query
    ),
    Operation.LIST_ITEMS: lambda api, who, m, _: api.conversations.list_items(who, m.id, m.query),
    Operation.RETRIEVE_ITEM: lambda api, who, m, _: api.conversations.retrieve_item(
        who, m.id, m.item, m.query
    ),
    Operation.DELETE_ITEM: lambda api, who, m, _: api.conversations.delete_item(
        who, m.id, m.item, m.query
    ),
}


async def perform(api: Api, match: Match, caller: Caller, body: bytes, reply: Reply) -> None:
    """Carry out an operation and send its answer; raises EngineError where nothing was sent."""
    if match.operation is Operation.CREATE:
        await api.responses.create(caller, body, match.query, reply)
    elif match.operation is Operation.RETRIEVE:
        await api.responses.retrieve(caller, match.id, match.query, reply)
    else:
        await reply.answer(await _WHOLE[match.operation](api, caller, match, body))


async def answer_errors(work: Awaitable[None], reply: Reply) -> None:
    """Await work that may fail before anything was sent, and send the error's answer (rule R15)."""
    try:
        await work
    except EngineError as error:
        await reply.answer(error_answer(error))
    except Exception:
        _log.exception("a request failed")
        await reply.answer(error_answer(EngineError("The gateway failed; see its log.")))
