"""What the doctor found: one finding for each probe, and how a report of them is shown."""

from __future__ import annotations

import textwrap
from enum import Enum

import msgspec

_WIDTH = 110


class Verdict(Enum):
    """What is to be said of one ability of a model server."""

    WORKS = "works"
    REPAIRED = "repaired"
    """The server gets it wrong; what a client of Holdfast sees is right."""
    BROKEN = "broken"
    UNSEEN = "unseen"
    """The server does not offer it, or the model did not do it this time."""


class Finding(msgspec.Struct, frozen=True):
    """What one probe found. `issues` are addresses, `advice` says what to set or to change."""

    verdict: Verdict
    detail: str
    issues: tuple[str, ...] = ()
    advice: str | None = None


class Diagnosis(msgspec.Struct, frozen=True):
    """A finding under the name of its probe, and how long it took in seconds."""

    probe: str
    finding: Finding
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """The whole report on one server; `settings` are the variables that go with it.

    `dialect` is the one that it was asked in.
    """

    backend: str
    server: str
    model: str
    dialect: str
    diagnoses: list[Diagnosis]
    settings: dict[str, str]

    @property
    def broken(self) -> bool:
        """True if a client would notice."""
        return any(found.finding.verdict is Verdict.BROKEN for found in self.diagnoses)

    def as_json(self) -> str:
        """Return the report for a program."""
        found = [
            {
                "probe": diagnosis.probe,
                "verdict": diagnosis.finding.verdict.value,
                "detail": diagnosis.finding.detail,
                "issues": list(diagnosis.finding.issues),
                "advice": diagnosis.finding.advice,
                "seconds": round(diagnosis.seconds, 3),
            }
            for diagnosis in self.diagnoses
        ]
        report = {
            "backend": self.backend,
            "server": self.server,
            "model": self.model,
            "dialect": self.dialect,
            "broken": self.broken,
            "probes": found,
            "settings": self.settings,
        }
        return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()

    def as_text(self) -> str:
        """Return the report for a person."""
        head = [f"{self.server} at {self.backend}, model {self.model}, asked in {self.dialect}", ""]
        names = max((len(diagnosis.probe) for diagnosis in self.diagnoses), default=0)
        rows = [line for diagnosis in self.diagnoses for line in _row(diagnosis, names)]
        return "\n".join([*head, *rows, "", *self._summary(), "", *self._settings()])

    def _summary(self) -> list[str]:
        verdicts = [diagnosis.finding.verdict for diagnosis in self.diagnoses]
        counts = [f"{verdicts.count(v)} {v.value}" for v in Verdict if v in verdicts]
        return [", ".join(counts) + "."]

    def _settings(self) -> list[str]:
        return ["Settings to use:", *(f"  {name}={value}" for name, value in self.settings.items())]


def _row(diagnosis: Diagnosis, names: int) -> list[str]:
    finding = diagnosis.finding
    start = f"{finding.verdict.value:<8}  {diagnosis.probe:<{names}}  "
    width = _WIDTH - len(start)
    first, *more = textwrap.wrap(finding.detail, width) or [""]
    if finding.advice is not None:
        more += textwrap.wrap(f"-> {finding.advice}", width)
    indent = " " * len(start)
    return [f"{start}{first}".rstrip(), *(indent + line for line in [*more, *finding.issues])]
