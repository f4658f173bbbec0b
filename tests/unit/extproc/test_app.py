"""`extproc.app`: how a worker serves and drains (E4)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from engine.runs import Runs
from engine.upstream.choice import Choice
from extproc.app import Worker, transport_of, worker
from extproc.engine_parts import Engine
from extproc.settings import Settings, SettingsError
from extproc.transport import Transport
from storage.memory import MemoryBlobs, MemoryStore
from tests.support import replies
from tests.support.engine_rig import final, no_provider
from tests.support.fake_model import FakeModel, Hang, frames_of
from tests.support.http_client import Client, request
from tests.support.replies import text
from tests.support.stream_rules import check_stream

STREAMED = b'{"model":"m","input":"hi","stream":true}'
NOW = {
    "HOLDFAST_SIDECAR__DRAIN_SECONDS": "0",
    "HOLDFAST_SIDECAR__GRACE_SECONDS": "0.01",
}


class FakeTransport:
    """Keeps the order of what it is told; a stream that is cut at its stop may still start a run."""

    def __init__(self, runs: Runs, late: bool) -> None:
        self.told: list[str] = []
        self.started = asyncio.Event()
        self.words: list[str] = []
        self.stopped = asyncio.Event()
        self._runs = runs
        self._late = late

    async def start(self) -> None:
        self.told.append("start")
        self.started.set()

    async def drain(self) -> None:
        self.told.append("drain")

    async def stop(self, grace: float) -> None:
        assert grace > 0
        self.told.append("stop" if grace < 60 else "refuse")
        if self._late and grace > 60:
            # Its exchange was still reading a body when the others were counted.
            await self.stopped.wait()
            self._runs.start(self.run())
        await asyncio.sleep(0)

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.words.append("stored")
            self.stopped.set()


@pytest.mark.parametrize("late", [True, False])
async def test_a_worker_that_stops_brings_every_run_to_its_end(late: bool) -> None:
    """E4, P4: also one that a stream began while the others were being stopped."""
    settings = Settings.load(None, NOW)
    engine = Engine(
        MemoryStore(),
        MemoryBlobs(),
        FakeModel(),
        no_provider,
        settings,
        "replica/0#1",
        Choice("responses"),
    )
    runs, stop = engine.live._runs, asyncio.Event()
    transport = FakeTransport(runs, late)
    built = Worker(transport, engine, settings)
    serving = asyncio.ensure_future(built.serve(stop))
    async with asyncio.timeout(5):
        await transport.started.wait()
        runs.start(transport.run())
        stop.set()
        await serving
    # Streams are cut only once their runs have ended.
    assert transport.told == ["start", "drain", "refuse", "stop"]
    assert transport.words == ["stored"] * (1 + late)
    assert len(runs) == 0


def test_a_port_for_downloads_needs_a_key_for_their_tickets() -> None:
    """X2: without one, whoever reaches the port could say whose files they are asking for."""
    environ = {
        "HOLDFAST_SIDECAR__LISTEN": ":9000",
        "HOLDFAST_SIDECAR__CONTENT_LISTEN": ":9001",
    }
    model = FakeModel()
    settings = Settings.load(None, environ)
    engine = Engine(
        MemoryStore(), MemoryBlobs(), model, no_provider, settings, "r/0#1", Choice("responses")
    )
    with pytest.raises(SettingsError, match="HOLDFAST_SEALING__KEYS"):
        transport_of(settings, 0, engine.endpoints, model)


async def test_a_worker_without_a_database_is_not_built() -> None:
    """The missing setting is named."""
    with pytest.raises(SettingsError, match="HOLDFAST_POSTGRES__URL"):
        async with worker(Settings.load(None, {}), 0):
            pass


@pytest.mark.parametrize("begun", [True, False], ids=["streaming", "reading its body"])
async def test_a_worker_of_both_transports_ends_with_what_runs_over_http(begun: bool) -> None:
    """E4, R1: the grace time ends the run, its client hears of it, and no request holds up the worker."""
    frames = frames_of(replies.stream(text("Hel", "lo")))
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        address = Path(folder) / "http.sock"
        environ = {**NOW, "HOLDFAST_HTTP__LISTEN": f"unix:{address}", "DATA_DIR": folder}
        settings = Settings.load(None, environ)
        settings.sidecar.run_dir.mkdir()
        model = FakeModel(*frames[:5], Hang(asyncio.Event()))
        engine = Engine(
            MemoryStore(),
            MemoryBlobs(),
            model,
            no_provider,
            settings,
            "replica/0#1",
            Choice("responses"),
        )
        transport = transport_of(settings, 0, engine.endpoints, model)
        stop = asyncio.Event()
        await transport.start()
        async with asyncio.timeout(20), Client.to(address) as client:
            asking = request("POST", "/v1/responses", STREAMED)
            if begun:
                await client.send(asking)
                await client.until(b"output_text.delta")
            else:
                await client.send(asking[:-1])
            built = Worker(Started(transport), engine, settings)
            stop.set()
            await built.serve(stop)
            if begun:
                answer = await client.answer()
                assert final(check_stream(answer.body))["status"] == "failed"
            assert await client.ended()


class Started:
    """A transport that was started before its worker was."""

    def __init__(self, transport: Transport) -> None:
        self.drain = transport.drain
        self.stop = transport.stop

    async def start(self) -> None:
        """It is started."""
