"""A Dockerfile as instructions: as much of its grammar as ours uses."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

IMAGE = Path(__file__).parents[2] / "deploy" / "docker" / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """One instruction; `stage` counts from 0."""

    stage: int
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value as words, without options."""
        return [word for word in shlex.split(self.value) if not word.startswith("--")]


def instructions(file: Path = IMAGE) -> list[Instruction]:
    """Return the instructions in order, continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        name, _, value = line.partition(" ")
        stage += name == "FROM"
        found.append(Instruction(stage, name, " ".join(value.split())))
    return found


def build_stage(name: str) -> list[Instruction]:
    """Return the instructions `name` of the first stage."""
    return [each for each in instructions() if each.stage == 0 and each.name == name]
