"""Vector stores asked for as adapters ask, over the memory store and small real parts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from engine.answers import Answer, error_answer
from engine.errors import EngineError
from engine.intake import Caller
from engine.ports import FormPart
from extproc.operations import perform
from extproc.routes import find
from tests.support.engine_rig import CALLER, Rig
from tests.support.fake_model import FakeModel
from tests.support.fake_reply import FakeReply
from tests.support.faulty_store import FaultyStore
from tests.support.retrieval import RetrievalRig

STORES = "/v1/vector_stores"


class Clocked(FaultyStore):
    """A store whose clock a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        super().__init__()
        self._clock = lambda: self.now


class StoreRig:
    """One worker; `parts` are what it retrieves with. `worker` and `store` as for `Rig`."""

    def __init__(
        self,
        model: FakeModel | None = None,
        *,
        parts: RetrievalRig | None = None,
        store: FaultyStore | None = None,
        worker: str = "replica/0#1",
        rewrite_model: str | None = None,
        search_seconds: float = 30.0,
    ) -> None:
        self.parts = RetrievalRig() if parts is None else parts
        self.engine = Rig(
            FakeModel() if model is None else model,
            retrieval=self.parts.means,
            extraction=self.parts.extraction,
            rewrite_model=rewrite_model,
            search_seconds=search_seconds,
            store=store,
            worker=worker,
        )
        self.store = self.engine.store

    async def ask(
        self, method: str, path: str, body: Any = None, *, caller: Caller = CALLER
    ) -> Answer:
        """Return the answer to a request, errors too."""
        reply = FakeReply()
        raw = b"" if body is None else json.dumps(body).encode()
        try:
            match = find(method, STORES + path)
            await perform(self.engine.endpoints, match, caller, raw, reply)
        except EngineError as error:
            return error_answer(error)
        assert reply.whole is not None
        return reply.whole

    async def made(self, path: str = "", **body: Any) -> Any:
        """Return what a POST has made."""
        answer = await self.ask("POST", path, body)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def got(self, path: str, method: str = "GET") -> Any:
        """Return what there is."""
        answer = await self.ask(method, path)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    async def refused(self, method: str, path: str, body: Any = None) -> Mapping[str, Any]:
        """Return the error of a request, with its `status`."""
        answer = await self.ask(method, path, body)
        assert answer.status >= 400, answer.body
        error: Mapping[str, Any] = json.loads(answer.body)["error"]
        return {**error, "status": answer.status}

    async def upload(self, text: str | bytes, name: str = "a.txt") -> str:
        """Upload a file; return its id."""
        data = text.encode() if isinstance(text, str) else text
        form = _Form(_Part("purpose", b"assistants"), _Part("file", data, filename=name))
        answer = await self.engine.files.create(CALLER, form, "")
        made: str = json.loads(answer.body)["id"]
        return made

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Ingest meanwhile."""
        for chore in self.engine.chores:
            chore.start()
        try:
            yield
        finally:
            for chore in self.engine.chores:
                await chore.stop()

    async def attached(
        self, store: str, text: str | bytes, name: str = "a.txt", **more: Any
    ) -> str:
        """Attach a new file and wait for its end; return its id."""
        file_id = await self.upload(text, name)
        await self.made(f"/{store}/files", file_id=file_id, **more)
        await self.ends(store, file_id)
        return file_id

    async def ends(self, store: str, file_id: str) -> Any:
        """Wait until a file is in progress no longer; return it."""

        async with asyncio.timeout(5):
            while True:
                shown = await self.got(f"/{store}/files/{file_id}")
                if shown["status"] != "in_progress":
                    return shown
                await asyncio.sleep(0.001)

    async def found(self, store: str, query: Any, **more: Any) -> list[str]:
        """Return the texts that a search finds."""
        page = await self.made(f"/{store}/search", query=query, **more)
        return [result["content"][0]["text"] for result in page["data"]]


class _Part:
    def __init__(self, name: str, data: bytes, filename: str | None = None) -> None:
        self.name, self.filename, self._data = name, filename, data

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._data


class _Form:
    def __init__(self, *parts: _Part) -> None:
        self._parts = parts

    async def parts(self) -> AsyncIterator[FormPart]:
        for part in self._parts:
            yield part
