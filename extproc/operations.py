"""Carries out a matched operation; the adapters differ only in where request and reply come from."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from engine.answers import Answer, error_answer
from engine.errors import EngineError
from engine.intake import Caller
from engine.ports import ModelClient, Reply
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

_Read = Callable[[Responses, Caller, str, str], Awaitable[Answer]]


async def _list(responses: Responses, caller: Caller, _id: str, query: str) -> Answer:
    return await responses.list(caller, query)


_WHOLE: Mapping[Operation, _Read] = {
    Operation.LIST: _list,
    Operation.DELETE: Responses.delete,
    Operation.CANCEL: Responses.cancel,
    Operation.INPUT_ITEMS: Responses.list_input_items,
}


async def perform(
    responses: Responses,
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
        await responses.create(caller, body, match.query, reply, model=model)
    elif match.operation is Operation.RETRIEVE:
        await responses.retrieve(caller, match.id, match.query, reply)
    else:
        await reply.answer(await _WHOLE[match.operation](responses, caller, match.id, match.query))


async def answer_errors(work: Awaitable[None], reply: Reply) -> None:
    """Await work that may fail before anything was sent, and send the error's answer (rule R15)."""
    try:
        await work
    except EngineError as error:
        await reply.answer(error_answer(error))
    except Exception:
        _log.exception("a request failed")
        await reply.answer(error_answer(EngineError("The gateway failed; see its log.")))
