"""`extproc.doctor.examination`: whole examinations of the scripted model, well and ill."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from extproc.doctor import probes_server
from extproc.doctor.backend import Unreachable
from extproc.doctor.examination import PROBES, examine
from extproc.doctor.findings import Finding, Report, Verdict
from extproc.settings import Settings
from tests.support import replies
from tests.support.patient import Patient
from tests.support.replies import reasoning, say, stream, text
from tests.support.scripts import Cut, Hold, Script

ANSWER = stream(text("Hel", "lo"))
# No form that can be read: what is whole and readable is repaired.
MARKUP = "<tool_call>\nthe weather of Paris, please\n</tool_call>"


async def examined(
    server: Patient,
    *only: str,
    model: str | None = None,
    deadline: float = 10.0,
    api_key: str | None = None,
    dialect: str = "responses",
) -> Report:
    """Examine a server, with `only` these probes if there are any."""
    model_section = {"url": server.url, "api_key": api_key, "dialect": dialect}
    settings = Settings(model=model_section)  # type: ignore[arg-type]
    chosen = [(name, probe) for name, probe in PROBES if name in (only or dict(PROBES))]
    async with asyncio.timeout(60):
        return await examine(settings, model, deadline=deadline, probes=chosen)


def findings(report: Report) -> Mapping[str, Finding]:
    return {diagnosis.probe: diagnosis.finding for diagnosis in report.diagnoses}


def verdicts(report: Report, verdict: Verdict) -> set[str]:
    return {name for name, finding in findings(report).items() if finding.verdict is verdict}


async def test_the_demo_model_is_well() -> None:
    """R8, R9, M4: nothing is broken, and what vLLM 0.32 refuses of a history is repaired."""
    async with Patient() as server:
        server.faults["disconnect"] = Script(ANSWER[:5], Hold(asyncio.Event()))
        report = await examined(server)

    assert not report.broken
    assert [diagnosis.probe for diagnosis in report.diagnoses] == [name for name, _ in PROBES]
    assert verdicts(report, Verdict.UNSEEN) == {"tokenizer"}
    assert verdicts(report, Verdict.REPAIRED) == {
        "replay: bare message",
        "replay: refusal",
        "error shape",
    }
    assert (report.model, report.server.split()[0]) == ("holdfast-demo", "holdfast-demo")
    assert report.settings == {"HOLDFAST_MODEL__URL": server.url}


async def test_a_server_is_examined_in_the_dialect_that_it_would_be_asked_in() -> None:
    """R8: an old vLLM in chat completions, where nothing of its streams has to be repaired."""
    async with Patient(release="0.18.1") as server:
        report = await examined(server, "text", "stream", "parallel calls", dialect="auto")
        paths = {received.path for received in server.requests}

    assert report.dialect == "chat"
    assert "asked in chat" in report.as_text()
    assert verdicts(report, Verdict.WORKS) == {"text", "stream", "parallel calls"}
    assert paths == {"/v1/chat/completions"}
    assert report.settings == {"HOLDFAST_MODEL__URL": server.url}


async def test_the_other_dialect_is_named_where_what_is_broken_works_in_it() -> None:
    """The settings to use; of a dialect that was chosen by hand nothing is said."""
    async with Patient(release="0.32.0") as server:
        server.faults["tool call"] = Script(stream(text(MARKUP)))
        report = await examined(server, "text", "tool call", dialect="auto")
        chosen = await examined(server, "text", "tool call", dialect="responses")

    assert (report.dialect, verdicts(report, Verdict.BROKEN)) == ("responses", {"tool call"})
    assert report.settings["HOLDFAST_MODEL__DIALECT"] == "chat"
    assert "HOLDFAST_MODEL__DIALECT" not in chosen.settings


TOOLS = {"tool call", "parallel calls", "no arguments"}
SPOKEN = {"text", "stream", "reasoning", "truncation"}


@pytest.mark.parametrize(
    ("release", "repaired", "works"),
    [
        ("0.16.0", SPOKEN | TOOLS | {"replay: image"}, {"usage", "replay: call"}),
        ("0.18.1", SPOKEN | TOOLS | {"replay: image"}, {"usage", "replay: call"}),
        ("0.20.0", SPOKEN | TOOLS | {"replay: image"}, {"usage", "replay: call"}),
        ("0.21.0", SPOKEN | TOOLS | {"replay: image"}, {"usage", "replay: call"}),
        ("0.24.0", SPOKEN | TOOLS | {"replay: image"}, {"usage", "replay: call"}),
        ("0.28.0", SPOKEN | TOOLS | {"replay: image"}, {"usage", "replay: call"}),
        (
            "0.32.0",
            {"truncation", "no arguments"},
            {"text", "stream", "reasoning", "tool call", "parallel calls", "replay: image"},
        ),
    ],
)
async def test_every_recorded_release_is_well_behind_holdfast(
    release: str, repaired: set[str], works: set[str]
) -> None:
    """R4-R9, M4: what its own stream gets wrong is repaired, and told to be."""
    async with Patient(release=release) as server:
        report = await examined(server)

    assert not report.broken, report.as_text()
    assert repaired <= verdicts(report, Verdict.REPAIRED)
    assert works <= verdicts(report, Verdict.WORKS)


@pytest.mark.parametrize(
    ("release", "probe", "words", "issue"),
    [
        ("0.16.0", "tool call", "arrive as text", "29725"),
        ("0.18.1", "parallel calls", "joined", "36435"),
        ("0.28.0", "tool call", "call_id changes", "47916"),
        ("0.28.0", "truncation", "told as completed", None),
        ("0.24.0", "reasoning", "event names", None),
    ],
)
async def test_what_is_repaired_is_told_with_its_issue(
    release: str, probe: str, words: str, issue: str | None
) -> None:
    """R8, R9: so that one can read on."""
    async with Patient(release=release) as server:
        found = findings(await examined(server, probe))[probe]

    assert words in found.detail
    assert issue is None or any(address.endswith(issue) for address in found.issues)


@pytest.mark.parametrize(
    ("probe", "script", "words"),
    [
        ("text", Script(ANSWER[:5], Cut()), "broke off"),
        ("text", Script(ANSWER[:5]), "without a terminal event"),
        ("text", say(), "no text came"),
        ("text", Script(replies.unavailable()), "503"),
        ("text", Script(replies.garbage()), "terminal event"),
        ("usage", Script(ANSWER.usage_null()), "how many tokens"),
        ("reasoning", say(text("<think>hm</think>", "no")), "thinking arrives as text"),
        ("structured output", say(text("Ada is 36.")), "does not follow the schema"),
        ("tool call", say(text(MARKUP)), "calls arrive as text"),
        ("tool call", Script(stream(text("x"))[:4], Cut()), "broke off"),
    ],
)
async def test_what_is_broken_is_told(probe: str, script: Script, words: str) -> None:
    """R1, R8: a client would notice, so the report does too."""
    async with Patient() as server:
        server.faults[{"usage": "text"}.get(probe, probe)] = script
        report = await examined(server, probe)

    found = findings(report)[probe]
    assert report.broken
    assert found.verdict is Verdict.BROKEN
    assert words in found.detail


async def test_advice_comes_with_what_is_broken() -> None:
    """H3: what to set, and the issue behind it."""
    async with Patient() as server:
        server.faults["tool call"] = say(text(MARKUP))
        server.faults["reasoning"] = say(text("<think>hm</think>"))
        found = findings(await examined(server, "tool call", "reasoning"))

    assert "--tool-call-parser" in str(found["tool call"].advice)
    assert any(address.endswith("29725") for address in found["tool call"].issues)
    assert "--reasoning-parser" in str(found["reasoning"].advice)


async def test_what_a_model_does_not_do_is_not_broken() -> None:
    """A small model that does not think, and calls one tool where two were wanted."""
    async with Patient() as server:
        server.faults["reasoning"] = say(text("no"))
        server.faults["parallel calls"] = say(replies.call("get_weather", "{}"))
        report = await examined(server)

    assert not report.broken
    assert verdicts(report, Verdict.UNSEEN) == {"reasoning", "parallel calls", "tokenizer"}


async def test_a_model_that_does_not_call_is_made_to() -> None:
    """`tool_choice: required` is the second try."""
    async with Patient() as server:
        await examined(server, "tool call")
        asked = [received.json.get("tool_choice") for received in server.requests]
        assert "required" not in asked
        server.faults["tool call"] = say(text("I would rather not."))
        await examined(server, "tool call")
        asked = [received.json.get("tool_choice") for received in server.requests]
        assert "required" in asked


async def test_reasoning_tokens_that_are_not_counted_are_told() -> None:
    """The item is right, the count is not: known, and no reason to fail."""
    async with Patient() as server:
        server.faults["reasoning"] = Script(
            stream(reasoning("hm"), text("no")).edit(_without_reasoning_tokens)
        )
        found = findings(await examined(server, "reasoning"))["reasoning"]

    assert found.verdict is Verdict.WORKS
    assert "33512" in found.detail


def _without_reasoning_tokens(event: dict[str, Any]) -> dict[str, Any]:
    usage = (event.get("response") or {}).get("usage")
    if usage:
        usage["output_tokens_details"]["reasoning_tokens"] = 0
    return event


async def test_a_server_that_does_not_notice_a_leaving_client_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P3: what nobody reads goes on burning its time."""
    hold = Hold(asyncio.Event())
    async with Patient() as server:
        server.faults["disconnect"] = Script(ANSWER[:5], hold)
        assert findings(await examined(server, "disconnect"))["disconnect"].verdict is Verdict.WORKS
        server.deaf = True
        monkeypatch.setattr(probes_server, "_LOOKS", 2)
        assert (
            findings(await examined(server, "disconnect"))["disconnect"].verdict is Verdict.BROKEN
        )


async def test_without_metrics_a_leaving_client_cannot_be_judged() -> None:
    """Not every server shows what it is doing."""
    async with Patient(metrics=False) as server:
        assert (
            findings(await examined(server, "disconnect"))["disconnect"].verdict is Verdict.UNSEEN
        )


async def test_each_probe_has_its_deadline() -> None:
    """A server that hangs costs one deadline for each probe, and no more."""
    async with Patient() as server:
        server.faults["text"] = Script(Hold(asyncio.Event()))
        report = await examined(server, "stream", "tool call", deadline=0.5)

    found = findings(report)
    assert found["stream"].detail == "no end after 0.5 seconds"
    assert found["tool call"].verdict is Verdict.WORKS


async def test_the_key_goes_to_the_server_and_into_no_report() -> None:
    """X4."""
    async with Patient() as server:
        report = await examined(server, api_key="sk-secret")
        sent = {received.headers.get("authorization") for received in server.requests}

    assert sent == {"Bearer sk-secret"}
    assert "sk-secret" not in report.as_text() + report.as_json()
    assert "HOLDFAST_MODEL__API_KEY" in report.settings


async def test_nobody_there_is_unreachable() -> None:
    """With the reason."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        settings = Settings(model={"url": f"http://127.0.0.1:{reserved.getsockname()[1]}"})  # type: ignore[arg-type]
        with pytest.raises(Unreachable, match="GET /version"):
            await examine(settings, None, deadline=5)


async def test_a_model_that_is_not_listed_is_told_at_once() -> None:
    """With those that there are."""
    async with Patient() as server:
        with pytest.raises(Unreachable, match="holdfast-demo"):
            await examined(server, model="gpt-4")
        assert server.requests == []
