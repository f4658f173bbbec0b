"""The whole examination of one server: who it is, every probe with its deadline, the report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from engine.upstream.choice import AUTO, Choice
from engine.upstream.servers import Profile, recognise
from extproc.doctor import probes as spoken
from extproc.doctor import probes_server
from extproc.doctor.backend import Backend, Unreachable
from extproc.doctor.findings import Diagnosis, Finding, Report, Verdict
from extproc.doctor.probes import Bench, Probe
from extproc.doctor.probes_embeddings import embedding_probes
from extproc.doctor.probes_replay import SHAPES, replay
from extproc.envoy.endpoint import parse_model_url
from extproc.settings import Settings
from extproc.values import dialect_choice, model_client

PROBES: tuple[tuple[str, Probe], ...] = (
    ("text", spoken.whole_text),
    ("stream", spoken.streamed_text),
    ("usage", spoken.usage),
    ("truncation", spoken.truncation),
    ("reasoning", spoken.reasoning),
    ("structured output", spoken.structured_output),
    ("tool parser", probes_server.tool_parser),
    ("tool call", spoken.tool_call),
    ("parallel calls", spoken.parallel_calls),
    ("no arguments", spoken.call_without_arguments),
    ("answer to a call", spoken.answer_to_a_call),
    *((f"replay: {shape.name}", replay(shape)) for shape in SHAPES),
    ("error shape", probes_server.error_shape),
    ("disconnect", probes_server.disconnect),
    ("tokenizer", probes_server.tokenizer),
)
_SLOW_SECONDS = 10.0


async def examine(
    settings: Settings,
    model: str | None,
    *,
    deadline: float,
    told: Callable[[Diagnosis], None] = lambda diagnosis: None,
    probes: Sequence[tuple[str, Probe]] = PROBES,
) -> Report:
    """Run the probes against `settings.model.url`, and that of an embedding model, if the settings name one.

    Each has `deadline` seconds at most. `told` hears of each as it is done. Without `model` it is the first
    that the server lists. Raises Unreachable.
    """
    url = settings.model.url
    assert url is not None
    settings = settings.having(model={"via": "url"})
    async with _backend(settings, url, deadline) as backend, model_client(settings) as client:
        server, name, profile = await _identity(backend, model)
        choice = dialect_choice(settings)
        choice.profile = profile
        bench = Bench(backend=backend, client=client, model=name, deadline=deadline, choice=choice)
        found = []
        for probe_name, probe in (*probes, *embedding_probes(settings)):
            found.append(await _diagnose(probe_name, probe, bench))
            told(found[-1])
        free = settings.model.dialect == AUTO
        better = await _better_dialect(bench, probes, found) if free else None
    dialect = choice.dialect(name).name
    return Report(url, server, name, dialect, found, dict(_settings(settings, found, better)))


async def _better_dialect(
    bench: Bench, probes: Sequence[tuple[str, Probe]], found: Sequence[Diagnosis]
) -> str | None:
    """Return the other dialect, if of what is broken anything works in it."""
    broken = {one.probe for one in found if one.finding.verdict is Verdict.BROKEN}
    other = "chat" if bench.choice.dialect(bench.model).name == "responses" else "responses"
    there = msgspec.structs.replace(bench, choice=Choice(other))
    for name, probe in probes:
        if name in broken:
            again = await _diagnose(name, probe, there)
            if again.finding.verdict in (Verdict.WORKS, Verdict.REPAIRED):
                return other
    return None


def _backend(settings: Settings, url: str, deadline: float) -> Backend:
    key = settings.model.api_key
    return Backend(
        parse_model_url(url),
        connect=settings.model.connect_seconds,
        deadline=deadline,
        api_key=None if key is None else key.get_secret_value(),
        trusted=settings.model.ca_file,
    )


async def _identity(backend: Backend, wanted: str | None) -> tuple[str, str, Profile]:
    """Return what the server calls itself, the model's name, and what is known of it; raises Unreachable."""
    told, told_models = await backend.get("/version"), await backend.get("/v1/models")
    version, listed = told.fields.get("version"), told_models.fields.get("data")
    models: list[dict[str, Any]] = listed if isinstance(listed, list) else []
    names = [str(entry.get("id")) for entry in models]
    name = wanted or next(iter(names), None)
    if name is None:
        raise Unreachable("GET /v1/models lists no model: name one with --model")
    if names and name not in names:
        raise Unreachable(f"the server has no model '{name}': it lists {', '.join(names[:5])}")
    owner = next((entry.get("owned_by") for entry in models), None) or "a model server"
    profile = recognise(told.body, told_models.body)
    return f"{owner} {version or ''}".strip(), name, profile


async def _diagnose(name: str, probe: Probe, bench: Bench) -> Diagnosis:
    started = time.monotonic()
    try:
        async with asyncio.timeout(bench.deadline):
            finding = await probe(bench)
    except TimeoutError:
        finding = Finding(Verdict.BROKEN, f"no end after {bench.deadline:g} seconds")
    except Unreachable as error:
        finding = Finding(Verdict.BROKEN, str(error))
    return Diagnosis(name, finding, time.monotonic() - started)


def _settings(
    settings: Settings, found: list[Diagnosis], better: str | None
) -> Iterator[tuple[str, str]]:
    """Yield the settings that go with this server; a key is told of, not shown."""
    model = settings.model
    yield "HOLDFAST_MODEL__URL", str(model.url)
    if model.api_key is not None:
        yield "HOLDFAST_MODEL__API_KEY", "(the key that was used now)"
    if model.ca_file is not None:
        yield "HOLDFAST_MODEL__CA_FILE", str(model.ca_file)
    if better is not None:
        yield "HOLDFAST_MODEL__DIALECT", better
    slowest = max((diagnosis.seconds for diagnosis in found), default=0.0)
    if slowest > _SLOW_SECONDS:
        # Streams start by themselves after a while, and then a refusal is an event and no status.
        yield "HOLDFAST_SIDECAR__OPEN_AFTER_SECONDS", f"{2 * slowest:.0f}"
