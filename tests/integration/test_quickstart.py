"""What docs/quickstart.md shows is run as it stands there, against `holdfast up` with its demo model."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.integration.test_up import DEADLINE, directory, holdfast, line, status

__all__ = ["directory"]

_TEXT = (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text()
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
_ADDRESS = "http://127.0.0.1:8080"


def _blocks(heading: str) -> str:
    section = _TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(_BLOCK.findall(section))


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        ("The OpenAI SDK", ["You said: What did I say? (turn 2)", "response.completed"]),
        (
            "Search in documents",
            [
                "handbook.txt Employees receive",
                "file_search_call handbook.txt",
                "AnnotationFileCitation(file_id='file-",
            ],
        ),
        ("The OpenAI Agents SDK", ["You said: My name is Ada.", "You said: What did I say?"]),
    ],
)
async def test_the_quickstart_runs(heading: str, said: list[str], directory: Path) -> None:
    """H3: a newcomer who copies it sees what it is about."""
    async with holdfast("up", DATA_DIR=str(directory), PORT="0") as gateway:
        url = (await line(gateway, r"ready at (http://127\.0\.0\.1:\d+)/v1")).group(1)
        code = _blocks(heading)
        assert _ADDRESS in code
        script = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-c", code.replace(_ADDRESS, url)),
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(DEADLINE):
            output, errors = await script.communicate()
        gateway.terminate()
        assert await status(gateway) == 0
    assert script.returncode == 0, errors.decode()
    missing = [text for text in said if text not in output.decode()]
    assert not missing, output.decode()
