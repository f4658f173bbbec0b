"""Two pods that share a database and nothing else: processes, sockets and, where that can be, a network each.

Each is `holdfast up` with an Envoy and two workers of its own. Postgres and the model are reached by unix
sockets, which no network keeps apart.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from storage.postgres.migrate import migrate
from tests.support.fix_postgres import create_database
from tests.support.fix_stack import open_session
from tests.support.replies import say, stream, text
from tests.support.scripted_model import ScriptedModel
from tests.support.scripts import Hold, Script
from tests.support.stack import eventually, reserved_port, short_directory
from tests.support.stream_rules import check_stream
from tests.support.unix_door import unix_door
from tests.support.wire import Seen, Wire

START = 60.0
LEASE = 3
ANSWER = stream(text("Hel", "lo"))


class Pod:
    """A pod that takes requests; `apart` says whether it has a network of its own."""

    def __init__(self, process: Process, port: int, wire: Wire, apart: bool) -> None:
        self.process = process
        self.port = port
        self.wire = wire
        self.apart = apart

    def kill(self) -> None:
        """End all of it as a node does that loses its power."""
        os.killpg(self.process.pid, signal.SIGKILL)


@asynccontextmanager
async def _pod(name: str, database: str, model: Path) -> AsyncIterator[Pod]:
    environ = {
        "HOLDFAST_SIDECAR__NAME": name,
        "HOLDFAST_SIDECAR__WORKERS": "2",
        "HOLDFAST_POSTGRES__LEASE_SECONDS": str(LEASE),
        "DATABASE_URL": database,
        "BACKEND_URL": f"unix:{model}",
    }
    async with AsyncExitStack() as parts:
        directory = parts.enter_context(short_directory())
        port = parts.enter_context(reserved_port())
        door = directory / "door.sock"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.apart", str(door), str(port)),
            *(sys.executable, "-m", "extproc", "up"),
            env={**os.environ, **environ, "DATA_DIR": str(directory), "PORT": str(port)},
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        try:
            apart = await _ready(process)
            connector = aiohttp.UnixConnector(str(door), limit=0)
            session = await parts.enter_async_context(open_session("http://pod", connector))
            wire = Wire(session)
            await eventually(lambda: _answers(wire), START)
            yield Pod(process, port, wire, apart)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()


async def _ready(process: Process) -> bool:
    """Wait until the pod says that it is; return whether it is apart."""
    assert process.stdout is not None
    said: list[str] = []
    async with asyncio.timeout(START):
        while line := (await process.stdout.readline()).decode():
            said.append(line)
            if "ready at" in line:
                return said[0] == "apart\n"
    raise AssertionError("".join(said))


async def _answers(wire: Wire) -> bool:
    try:
        return (await wire.ask("GET", "/v1/responses")).status == 200
    except aiohttp.ClientError:
        return False


@pytest_asyncio.fixture(scope="module")
async def sockets(
    postgres_server: EmbeddedPostgres, stage: ScriptedModel
) -> AsyncIterator[tuple[str, Path]]:
    """A database, and a socket that leads to the scripted model."""
    database = await create_database(postgres_server)
    await migrate(database)
    with short_directory() as directory:
        async with unix_door(directory / "model.sock", stage.port) as path:
            yield database, path


@pytest_asyncio.fixture(scope="module")
async def pods(sockets: tuple[str, Path]) -> AsyncIterator[tuple[Pod, Pod]]:
    """Two pods of one installation."""
    async with AsyncExitStack() as parts:
        started = [await parts.enter_async_context(_pod(name, *sockets)) for name in ("a", "b")]
        yield started[0], started[1]


def _plays(model: ScriptedModel, name: str, *steps: Script | Hold) -> str:
    flat = [s for step in steps for s in (step.steps if isinstance(step, Script) else [step])]
    model.named[name] = Script(*flat)
    return f"script/{name}"


async def test_a_network_of_its_own_is_its_own(pods: tuple[Pod, Pod]) -> None:
    """Promise 2: where a pod is apart, only its door leads to it: nothing below is shared by chance."""
    for pod in pods:
        if pod.apart:
            with pytest.raises(OSError, match="onnect"):
                await asyncio.open_connection("127.0.0.1", pod.port)


async def test_what_one_pod_answered_the_other_continues(
    pods: tuple[Pod, Pod], stage: ScriptedModel
) -> None:
    """M1: at once, back and forth, whole and streamed."""
    first, second = pods
    model = _plays(stage, "pods-turns", say(text("Hel", "lo")))
    seen = await first.wire.create(model=model, stream=False)
    for turn, pod in enumerate((second, first, second)):
        before = _object(seen)["id"]
        seen = await pod.wire.create(model=model, stream=turn % 2 == 0, previous_response_id=before)
        assert _object(seen)["previous_response_id"] == before
        assert _object(seen)["status"] == "completed"
    last = (await first.wire.get(_object(seen)["id"])).json
    assert last["output"] == _object(seen)["output"]


async def test_a_stream_is_followed_and_ended_through_the_other_pod(
    pods: tuple[Pod, Pod], stage: ScriptedModel
) -> None:
    """P6: byte for byte, while it runs; and a cancel reaches the worker that runs it."""
    first, second = pods
    gate = asyncio.Event()
    model = _plays(stage, "pods-stream", Script(ANSWER[:5]), Hold(gate), Script(ANSWER[5:]))
    async with first.wire.open(model=model) as running:
        response_id = (await running.until("response.created"))["response"]["id"]
        await running.until("response.output_text.delta")
        async with second.wire.follow(response_id) as followed:
            await followed.until("response.output_text.delta")
            ended = await second.wire.ask("POST", f"/v1/responses/{response_id}/cancel")
            assert ended.json["status"] == "cancelled"
            await running.rest()
            await followed.rest()
    gate.set()
    assert running.logged == followed.logged
    check_stream(bytes(followed.raw))


async def test_turns_of_one_conversation_through_both_are_all_in_it(
    pods: tuple[Pod, Pod], stage: ScriptedModel
) -> None:
    """M7: sixteen at once, none lost, one order."""
    model = _plays(stage, "pods-conversation", say(text("yes")))
    made = await pods[0].wire.ask("POST", "/v1/conversations", json={})
    conversation = made.json["id"]
    turns = [
        pods[number % 2].wire.create(
            START, model=model, stream=False, input=f"turn {number}", conversation=conversation
        )
        for number in range(16)
    ]
    assert {seen.status for seen in await asyncio.gather(*turns)} == {200}
    listed = await pods[1].wire.ask("GET", f"/v1/conversations/{conversation}/items?limit=100")
    users = [item for item in listed.json["data"] if item["role"] == "user"]
    assert len(listed.json["data"]) == 32
    assert {item["content"][0]["text"] for item in users} == {f"turn {n}" for n in range(16)}


async def test_what_a_lost_pod_ran_is_ended_by_the_other(
    sockets: tuple[str, Path], stage: ScriptedModel
) -> None:
    """P4: all processes of a pod at once: in the background it is run again, in the foreground it failed."""
    gate = asyncio.Event()
    model = _plays(stage, "pods-lost", Script(ANSWER[:5]), Hold(gate), Script(ANSWER[5:]))
    async with _pod("lost", *sockets) as lost, _pod("left", *sockets) as left:
        made = [
            await lost.wire.create(model=model, stream=False, background=True) for _ in range(6)
        ]
        queued = [seen.json["id"] for seen in made]
        async with lost.wire.open(model=model) as running:
            foreground = (await running.until("response.created"))["response"]["id"]
            await running.until("response.output_text.delta")
            await eventually(lambda: _all(left.wire, queued, "in_progress"))
            lost.kill()
            await running.rest()
        assert not running.clean
        gate.set()
        await eventually(lambda: _all(left.wire, queued, "completed"), START)
        await eventually(lambda: _all(left.wire, [foreground], "failed"), START)


def _object(seen: Seen) -> dict[str, Any]:
    """Return the response object of an answer, streamed or not."""
    streamed = seen.headers["content-type"] != "application/json"
    found: dict[str, Any] = seen.response if streamed else seen.json
    return found


async def _all(wire: Wire, response_ids: list[str], status: str) -> bool:
    seen = [(await wire.get(response_id)).json["status"] for response_id in response_ids]
    return set(seen) == {status}
