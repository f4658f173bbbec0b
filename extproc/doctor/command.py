"""What `holdfast doctor` prints, and its exit status: 0 all works or is repaired, 1 broken, 2 unreachable."""

from __future__ import annotations

import asyncio
import logging

from extproc.doctor.backend import Unreachable
from extproc.doctor.examination import examine
from extproc.doctor.findings import Diagnosis
from extproc.settings import Settings
from extproc.up.terminal import say, warn

OK, BROKEN, UNREACHABLE = 0, 1, 2


def run(settings: Settings, model: str | None, *, as_json: bool, deadline: float) -> int:
    """Examine the server of the settings, print the report, and return the exit status."""

    def told(diagnosis: Diagnosis) -> None:
        warn(f"{diagnosis.probe}: {diagnosis.finding.verdict.value}")

    # What the engine logs of failing turns is in the report.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        report = asyncio.run(examine(settings, model, deadline=deadline, told=told))
    except Unreachable as error:
        warn(f"holdfast: {settings.model.url} cannot be examined: {error}")
        return UNREACHABLE
    say(report.as_json() if as_json else report.as_text())
    return BROKEN if report.broken else OK
