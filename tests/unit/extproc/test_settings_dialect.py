"""`extproc.settings_dialect`: which dialect each model is asked in."""

from __future__ import annotations

import pytest

from extproc.settings import Settings, SettingsError
from extproc.values import dialect_choice


def load(**environ: str) -> Settings:
    return Settings.load(None, environ)


def test_patterns_choose_for_models() -> None:
    """The environment and back again, as a worker gets its settings; a name may have any sign but a comma."""
    settings = load(HOLDFAST_MODEL__DIALECTS="gpt-oss*=responses, hf.co/a=b:Q4=chat,*=auto")
    settings = Settings.load(None, settings.environment())
    choice = dialect_choice(settings)
    assert choice.dialect("gpt-oss-20b").name == "responses"
    assert choice.dialect("hf.co/a=b:Q4").name == "chat"
    assert choice.dialect("other").name == "chat"


@pytest.mark.parametrize("value", ["chat", "=chat", "m=", "m=completions", "m=chat,x"])
def test_what_is_no_pattern_with_a_dialect_is_refused(value: str) -> None:
    """H1: at start, with the setting's name."""
    with pytest.raises(SettingsError, match="HOLDFAST_MODEL__DIALECTS"):
        load(HOLDFAST_MODEL__DIALECTS=value)


@pytest.mark.parametrize("check", ["off", "report", "retry"])
def test_care_and_kind_reach_the_choice(check: str) -> None:
    """All that the section says."""
    settings = load(
        HOLDFAST_MODEL__SERVER="ollama",
        HOLDFAST_MODEL__CHECK_OUTPUT=check,
        HOLDFAST_MODEL__ESTIMATE_REASONING_TOKENS="true",
    )
    choice = dialect_choice(settings)
    assert choice.profile.server.name == "ollama"
    assert choice.care.check_output == (check != "off")
    assert choice.care.ask_again == (check == "retry")
    assert choice.care.estimate_reasoning
