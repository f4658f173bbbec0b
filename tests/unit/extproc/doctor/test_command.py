"""`holdfast doctor`: what it prints and with which status it ends."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from extproc import cli
from tests.support.patient import Patient
from tests.support.replies import say


async def run(*arguments: str) -> int:
    """Run the command as a user does, in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(cli.run, ["doctor", *arguments], {})


async def test_a_report_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, probe, detail, issue, settings; status 0 where all works or is repaired."""
    async with Patient() as server:
        status = await run("--backend", server.url)

    printed = capsys.readouterr()
    assert status == 0
    lines = printed.out.splitlines()
    assert lines[0].startswith("holdfast-demo 0.32.0")
    assert any(line.split()[:3] == ["works", "tool", "call"] for line in lines)
    assert any(line.startswith("repaired  replay: refusal") for line in lines)
    assert lines[-1] == f"  HOLDFAST_MODEL__URL={server.url}"
    assert "Traceback" not in printed.err
    assert all(len(line) <= 110 for line in lines)


async def test_a_report_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, with every field; status 1 where something is broken."""
    async with Patient() as server:
        server.faults["text"] = say()
        status = await run("--backend", server.url, "--model", "holdfast-demo", "--json")

    report = json.loads(capsys.readouterr().out)
    assert status == 1
    assert report["broken"] is True
    assert report["probes"][0] == {
        "probe": "text",
        "verdict": "broken",
        "detail": "no text came; the response is completed",
        "issues": [],
        "advice": None,
        "seconds": report["probes"][0]["seconds"],
    }
    assert report["settings"] == {"HOLDFAST_MODEL__URL": server.url}


async def test_nobody_there_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """So that CI can tell a server that is down from one that is wrong."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        status = await run("--backend", f"http://127.0.0.1:{reserved.getsockname()[1]}")

    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert "cannot be examined" in printed.err


@pytest.mark.parametrize("arguments", [[], ["--backend", "ftp://x"]])
async def test_a_wrong_url_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Like every wrong setting."""
    assert await run(*arguments) == 2
    assert "model.url" in capsys.readouterr().err
