"""Conversations as the npm package `openai` uses them; where there is no npm, there is nothing to test."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fix_stack import BOTH_WAYS
from tests.support.replies import say, text
from tests.support.stack import Stack, short_directory

_NODE = Path(__file__).parents[1] / "support" / "node"
_DEADLINE = 120.0

pytestmark = pytest.mark.skipif(
    not (shutil.which("npm") and shutil.which("node")), reason="needs node and npm"
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A copy of our scripts, for what npm installs beside them; the package comes from npm's registry."""
    with short_directory() as directory:
        yield Path(shutil.copytree(_NODE, directory / "node"))


async def run(folder: Path, *command: str) -> tuple[int | None, str, str]:
    """Return status, output and errors of a command."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_DEADLINE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


@BOTH_WAYS
@pytest.mark.timeout(300)
async def test_every_method_on_conversations(stack: Stack, folder: Path) -> None:
    """H2, M7: create, retrieve, update, delete, items and turns; the script checks each by itself."""
    if not (folder / "node_modules").exists():
        status, _, errors = await run(
            folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"
        )
        if status != 0:
            pytest.skip(f"npm could not install the package: {errors[-300:]}")
    model = stack.plays(say(text("ok")))
    status, told, errors = await run(folder, "node", "conversations.mjs", f"{stack.url}/v1", model)
    assert status == 0, errors
    assert json.loads(told) == ["zero", "one", "ok", "two", "ok", "three"]
