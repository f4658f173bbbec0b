"""Who may say what to whom: headers, credentials, and what is written into logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from storage.postgres.embedded import EmbeddedPostgres
from tests.support.fix_postgres import create_database
from tests.support.replies import say, text
from tests.support.scripted_model import ScriptedModel
from tests.support.stack import API_KEY, CLIENT_KEY, Stack, running_stack
from tests.support.wire import Wire

SPOKEN = "the-conversations-own-words"


@pytest_asyncio.fixture(scope="module")
async def trusting(postgres_server: EmbeddedPostgres, stage: ScriptedModel) -> AsyncIterator[Stack]:
    """A stack that forwards the client's credentials."""
    async with running_stack(
        stage,
        await create_database(postgres_server),
        sidecar={"workers": 1},
        model={"api_key": None, "forward_authorization": True},
    ) as running:
        yield running


async def test_the_model_server_gets_the_gateways_key_alone(stack: Stack, wire: Wire) -> None:
    """X4: our key goes upstream, the client's does not, and nothing of the client's headers."""
    model = stack.plays(say(text("ok")))
    headers = {"x-own": "1", "cookie": "session=1", "x-request-id": "the-clients"}

    async with wire.open(model=model, headers=headers) as reading:
        await reading.rest()

    received = stack.asked(model)[0]
    assert received.headers.getall("authorization") == [f"Bearer {API_KEY}"]
    assert "x-own" not in received.headers
    assert "cookie" not in received.headers
    assert CLIENT_KEY not in str(received.headers) + str(received.body)


async def test_the_request_id_joins_the_logs(stack: Stack, wire: Wire) -> None:
    """R15: the client's answer and the model server's request carry the same id."""
    model = stack.plays(say(text("ok")))

    seen = await wire.create(model=model, stream=False)

    assert stack.asked(model)[0].headers["x-request-id"] == seen.headers["x-request-id"]


async def test_the_clients_key_is_forwarded_where_a_setting_says_so(trusting: Stack) -> None:
    """X4: `model.forward_authorization`."""
    model = trusting.plays(say(text("ok")))
    async with aiohttp.ClientSession(
        trusting.url, headers={"authorization": f"Bearer {CLIENT_KEY}"}
    ) as session:
        await Wire(session).create(model=model, stream=False)

    assert trusting.asked(model)[0].headers.getall("authorization") == [f"Bearer {CLIENT_KEY}"]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_headers_of_ours_do_not_come_from_outside(
    stack: Stack, wire: Wire, path: str
) -> None:
    """X2, X6: x-holdfast-* of a client reaches nobody, on our paths and on others."""
    model = stack.plays(say(text("ok")))
    headers = {
        "x-holdfast-tenant": "another",
        "X-Holdfast-Turn": "2",
        "x-holdfast-affinity": "another",
    }

    await wire.ask(
        "POST",
        path,
        json={"model": model, "input": "x", "messages": [{"role": "user", "content": "x"}]}
        if "chat" in path
        else {"model": model, "input": "x"},
        headers=headers,
    )

    arrived = stack.asked(model)[0].headers
    ours = {name.lower(): value for name, value in arrived.items() if "holdfast" in name.lower()}
    # The turns of a conversation say which one it is, in our words.
    assert ours.pop("x-holdfast-affinity", "") != "another"
    assert ours == {}


async def test_the_model_listener_is_not_on_the_network(stack: Stack) -> None:
    """X6: Envoy listens on one port; the model and admin listeners are files of our user's alone."""
    port = int(stack.url.rpartition(":")[2])
    assert _listening(stack.envoy()) == {f"0100007F:{port:04X}"}
    for socket in (stack.settings.admin_socket, stack.settings.model.socket):
        assert socket.stat().st_mode & 0o007 == 0


async def test_no_secret_and_no_content_is_logged(
    stack: Stack, hasty: Stack, wire: Wire, hasty_wire: Wire
) -> None:
    """X4, P5: at level debug, for requests that go well, badly, and that are abandoned."""
    await wire.create(model=stack.plays(say(text(SPOKEN))), input=SPOKEN)
    await wire.create(model="script/garbage", input=SPOKEN)
    await wire.create(model="script/500", input=SPOKEN)
    await wire.create(model="demo", input=SPOKEN, temperature=SPOKEN)
    await wire.create(model="demo", input=SPOKEN, previous_response_id="resp_" + SPOKEN)
    await wire.ask("GET", f"/v1/responses/{SPOKEN}")
    await hasty_wire.create(model="script/endless", input=SPOKEN)
    await asyncio.gather(*(wire.create(model="demo", input=SPOKEN) for _ in range(5)))

    for said in (stack.said, hasty.said):
        assert any("worker-0" in line for line in said)
        for secret in (API_KEY, CLIENT_KEY, SPOKEN, "Bearer"):
            assert [line for line in said if secret in line] == []


def _listening(pid: int) -> set[str]:
    """Return the TCP addresses on which a process listens, as the kernel writes them."""
    inodes = {
        match[1]
        for fd in Path(f"/proc/{pid}/fd").iterdir()
        if (match := re.fullmatch(r"socket:\[(\d+)\]", str(_link(fd))))
    }
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {line[1] for line in lines if line[3] == "0A" and line[9] in inodes}


def _link(fd: Path) -> Path | str:
    try:
        return fd.readlink()
    except OSError:
        return ""
