"""Two tenants of a stack, one of whom has responses in every state for the other to ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import aiohttp

from tests.support.replies import say, stream, text
from tests.support.scripts import Hold, Script
from tests.support.stack import Stack
from tests.support.wire import CONNECTORS, FILES, PROMPTS, RESPONSES, UPLOADS, VECTOR_STORES, Wire


def a_connector(label: str) -> dict[str, str]:
    """Return the body that makes a connector to a server that is never asked."""
    return {"server_label": label, "server_url": "https://mcp.example.com/mcp"}


A_PROMPT = {"template": {"model": "demo", "instructions": "be brief"}}


AN_UPLOAD = {"bytes": 1, "filename": "f", "mime_type": "text/plain", "purpose": "user_data"}


def a_form(**fields: str | bytes) -> aiohttp.FormData:
    """Return a form; what is bytes is a file."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value, filename="f.txt" if isinstance(value, bytes) else None)
    return form


def bearer(token: str) -> dict[str, str]:
    """Return the headers that carry a token."""
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def speaking(stack: Stack, headers: Mapping[str, str]) -> AsyncIterator[Wire]:
    """A client of the stack that sends these headers with everything."""
    # None for the whole: two streams are held open while all probes are made.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=60, sock_read=60)
    async with aiohttp.ClientSession(stack.url, headers=headers, timeout=timeout) as session:
        yield Wire(session)


@dataclass
class Tenants:
    """Two tenants' clients, and what belongs to the other one."""

    mine: Wire
    others: Wire
    mine_id: str
    response_ids: dict[str, str]
    """By state."""
    item_ids: dict[str, str]
    mine_conversation: str
    conversation_ids: dict[str, str]
    """By state."""
    connector_ids: dict[str, str]
    connector_labels: dict[str, str]
    prompt_ids: dict[str, str]
    file_ids: dict[str, str]
    upload_ids: dict[str, str]
    mine_store: str
    mine_file: str
    store_ids: dict[str, str]
    """Of vector stores."""
    batch_ids: dict[str, str]


@asynccontextmanager
async def two_tenants(
    stack: Stack, my_headers: Mapping[str, str], others_headers: Mapping[str, str]
) -> AsyncIterator[Tenants]:
    """Two tenants; the other one has responses in each state, one of them still running."""
    gate = asyncio.Event()
    frames = stream(text("Hel", "lo"))
    async with AsyncExitStack() as parts:
        mine, others = [
            await parts.enter_async_context(speaking(stack, headers))
            for headers in (my_headers, others_headers)
        ]
        kept = await mine.create(model=stack.plays(say(text("mine"))), stream=False)
        done = await others.create(model=stack.plays(say(text("others"))), stream=False)
        streamed = await others.create(model=stack.plays(frames))
        failed = await others.create(model=stack.plays(frames[:4]))
        running = await parts.enter_async_context(
            others.open(model=stack.plays(Script(frames[:4], Hold(gate), frames[4:])))
        )
        created = await running.until("response.created")
        mine_conversation = await _conversation(mine)
        said, busy = await _conversation(others), await _conversation(others)
        turn = await parts.enter_async_context(
            others.open(model=stack.plays(frames[:4], Hold(gate), frames[4:]), conversation=busy)
        )
        await turn.until("response.created")
        told = await others.ask("GET", f"/v1/conversations/{said}/items")
        made = done.json["id"]
        connector = await others.ask("POST", CONNECTORS, json=a_connector(f"crm_{uuid4().hex}"))
        prompt = await others.ask("POST", PROMPTS, json=A_PROMPT)
        file = await others.ask("POST", FILES, data=a_form(purpose="user_data", file=b"secret"))
        upload = await others.ask("POST", UPLOADS, json=AN_UPLOAD)
        store, batch = await _vector_store(others, file.json["id"])
        mine_file = await mine.ask("POST", FILES, data=a_form(purpose="user_data", file=b"mine"))
        mine_store, _ = await _vector_store(mine, mine_file.json["id"])
        items = await others.ask("GET", f"{RESPONSES}/{made}/input_items")
        yield Tenants(
            mine,
            others,
            mine_id=kept.json["id"],
            response_ids={
                "completed": made,
                "streamed": streamed.response["id"],
                "failed": failed.events[0]["response"]["id"],
                "running": created["response"]["id"],
            },
            item_ids={
                "input": items.json["data"][0]["id"],
                "output": done.json["output"][0]["id"],
                "of a conversation": told.json["data"][0]["id"],
            },
            mine_conversation=mine_conversation,
            conversation_ids={"said": said, "busy": busy},
            connector_ids={"connector": connector.json["id"]},
            connector_labels={"connector": connector.json["server_label"]},
            prompt_ids={"prompt": prompt.json["id"]},
            file_ids={"file": file.json["id"]},
            upload_ids={"upload": upload.json["id"]},
            mine_store=mine_store,
            mine_file=mine_file.json["id"],
            store_ids={"store": store},
            batch_ids={"batch": batch},
        )
        gate.set()
        await running.rest()
        await turn.rest()


async def _conversation(wire: Wire) -> str:
    """Create a conversation with an item; return its id."""
    items = [{"role": "user", "content": "said"}]
    seen = await wire.ask("POST", "/v1/conversations", json={"items": items})
    assert seen.status == 200, seen.raw
    made: str = seen.json["id"]
    return made


async def _vector_store(wire: Wire, file_id: str) -> tuple[str, str]:
    """Create a vector store with a batch of one file; return their ids."""
    made = await wire.ask("POST", VECTOR_STORES, json={"name": "secret"})
    assert made.status == 200, made.raw
    store: str = made.json["id"]
    path = f"{VECTOR_STORES}/{store}/file_batches"
    batch = await wire.ask("POST", path, json={"file_ids": [file_id]})
    assert batch.status == 200, batch.raw
    return store, batch.json["id"]
