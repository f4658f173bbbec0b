"""`extproc.scout`: what the model server says of itself is learnt beside the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.errors import UpstreamFailed
from engine.upstream.choice import Choice
from extproc.scout import Scout

MODELS = b'{"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 9}]}'
NEVER = 1000.0


class Server:
    """Answers, or fails with what it is told to."""

    def __init__(self, version: str = "0.30.0") -> None:
        self.version = version
        self.status = 200
        self.failure: UpstreamFailed | None = None
        self.asked: list[str] = []

    async def get(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.failure is not None:
            raise self.failure
        if path == "/version":
            return self.status, b'{"version": "%b"}' % self.version.encode()
        return self.status, MODELS


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while True:
            if happened():
                return
            await asyncio.sleep(0.001)


async def test_a_server_is_learnt_and_a_newer_release_of_it_noticed() -> None:
    """The dialect follows."""
    server, choice = Server("0.20.0"), Choice()
    scout = Scout(server.get, choice, seconds=0.01)
    assert choice.dialect("m").name == "chat"
    scout.start()
    await until(lambda: str(choice.profile) == "vllm 0.20.0")
    assert choice.dialect("m").name == "chat"
    server.version = "0.31.0"
    await until(lambda: choice.dialect("m").name == "responses")
    await scout.stop()


async def test_a_server_that_answered_is_asked_seldom() -> None:
    """One that did not, soon again."""
    server = Server()
    scout = Scout(server.get, Choice(), seconds=NEVER)
    await scout._look()
    for _ in range(int(NEVER / 2) - 1):
        await scout._look()
    assert len(server.asked) == 2
    await scout._look()
    assert len(server.asked) == 4
    server.failure = UpstreamFailed("The model server could not be reached.")
    away = Scout(server.get, Choice(), seconds=NEVER)
    await away._look()
    await away._look()
    assert len(server.asked) == 6


async def test_what_was_known_outlasts_a_server_that_is_away() -> None:
    """Nothing is forgotten by an outage, and nothing learnt from an error page."""
    server, choice = Server(), Choice()
    scout = Scout(server.get, choice, seconds=NEVER)
    await scout.ask()
    known = choice.profile
    server.failure = UpstreamFailed("The model server could not be reached.")
    await scout.ask()
    server.failure, server.status = None, 503
    await scout.ask()
    assert choice.profile is known
    assert str(known) == "vllm 0.30.0"


async def test_a_server_without_a_version_is_known_by_its_models() -> None:
    """Only vLLM has one; of an unknown age it is asked in chat."""
    server, choice = Server(), Choice()

    async def without_version(path: str) -> tuple[int, bytes]:
        return (404, b"no") if path == "/version" else await server.get(path)

    await Scout(without_version, choice, seconds=NEVER).ask()
    assert (str(choice.profile), choice.dialect("m").name) == ("vllm", "chat")
