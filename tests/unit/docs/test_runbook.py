"""The commands of docs/runbook.md are there where it tells to run them: in the workers' container."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extproc import cli

RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"
# What is looked at elsewhere: as a person with a terminal, not in a pod.
_ELSEWHERE = {"istioctl", "egctl", "kubectl", "make", "select"}


def _commands() -> list[list[str]]:
    """Return everything in code that is a line of words with a lowercase first one."""
    text = RUNBOOK.read_text(encoding="utf-8")
    found = [code.split() for code in re.findall(r"`([a-z]+(?: [^`]+)+)`", text)]
    inner = [words[words.index("--") + 1 :] for words in found if "--" in words]
    return [words for words in found + inner if words[0] not in _ELSEWHERE]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_each_command_of_the_runbook_can_be_given_in_the_image(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """H3: the image has Python and `holdfast`, no curl; whoever is called has no time to find that out."""
    program, command, *_ = words
    assert program == "holdfast"
    with pytest.raises(SystemExit) as ended:
        cli.run([command, "--help"], {})

    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(word in told for word in words if word.startswith("--"))
