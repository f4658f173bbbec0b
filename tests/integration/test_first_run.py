"""`holdfast up` on a fresh machine: no settings, the demo model, curl and the SDK, Ctrl-C, again."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE
from pathlib import Path

import openai

from storage.postgres.embedded_process import children
from tests.integration.test_up import directory, holdfast, line, status

__all__ = ["directory"]


def descendants(pid: int) -> set[int]:
    """Return all processes below one."""
    found = set(children(pid))
    return found.union(*(descendants(child) for child in found))


async def curl(*arguments: str) -> str:
    """Run curl as the README shows it."""
    process = await asyncio.create_subprocess_exec("curl", "-sS", *arguments, stdout=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_what_was_said_is_still_there_after_ctrl_c_and_a_new_start(
    directory: Path,
) -> None:
    """H3, promise 1: curl and SDK, two turns; no process stays; the next start continues the talk."""
    environ = {"DATA_DIR": str(directory / "data"), "PORT": "0"}
    async with holdfast("up", **environ) as process:
        url = (await line(process, r"ready at (http://\S+/v1)")).group(1)
        body = '{"model": "holdfast-demo", "input": "Hello!", "stream": true}'
        streamed = await curl(
            "-N", f"{url}/responses", "-H", "content-type: application/json", "-d", body
        )
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as sdk:
            one = await sdk.responses.create(model="holdfast-demo", input="My name is Ada.")
            async with sdk.responses.stream(
                model="holdfast-demo", input="And?", previous_response_id=one.id
            ) as stream:
                two = await stream.get_final_response()
        running = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        assert await status(process) == 0

    assert streamed.startswith("event: response.created\n")
    assert streamed.endswith("data: [DONE]\n\n")
    # A demo model, Envoy, a worker, a postmaster and its own processes.
    assert len(running) >= 5
    assert [pid for pid in running if _runs(pid)] == []

    async with holdfast("up", **environ) as process:
        url = (await line(process, r"ready at (http://\S+/v1)")).group(1)
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as sdk:
            assert (await sdk.responses.retrieve(one.id)).output == one.output
            three = await sdk.responses.create(
                model="holdfast-demo", input="So?", previous_response_id=two.id
            )
            assert three.previous_response_id == two.id
        process.send_signal(signal.SIGINT)
        assert await status(process) == 0
    log = (directory / "data" / "postgres" / "postgres.log").read_text()
    assert "database system was not properly shut down" not in log


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
