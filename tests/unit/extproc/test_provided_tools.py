"""Providers that an operator adds, and what the settings say of whose tools are."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.ports import ToolDeclaration
from extproc.provided_tools import load_providers
from extproc.settings_source import SettingsError
from extproc.settings_tools import Tools


def test_a_provider_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its type leads to its function."""
    (tmp_path / "mine.py").write_text("def opened(declared): return declared.label\nvalue = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = load_providers(Tools(providers=("weather=mine:opened",)).providers)
    declared = ToolDeclaration(label="weather", fields={}, param="tools[0]", tenant="t")
    assert found["weather"](declared) == "weather"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(
    "place", ["no_such_module:f", "tests.support.replies:no_such", "json.decoder:NaN"]
)
def test_what_cannot_be_loaded_is_told_when_the_worker_starts(place: str) -> None:
    """H1: by the setting's name and the provider's."""
    with pytest.raises(SettingsError) as caught:
        load_providers([f"weather={place}"])
    assert "HOLDFAST_TOOLS__PROVIDERS" in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"upstream_types": ("function",)}, "the client answers"),
        ({"upstream_types": ("web_search", "shell")}, "the client answers"),
        ({"providers": ("dice",)}, "TYPE=MODULE:FUNCTION"),
        ({"providers": ("Dice=m:f",)}, "TYPE=MODULE:FUNCTION"),
        ({"providers": ("dice=m:f", "dice=m:g")}, "once"),
        ({"providers": ("mcp=m:f",)}, "a type of the API"),
        ({"providers": ("file_search=m:f",)}, "a type of the API"),
        ({"providers": ("dice=m:f",), "upstream_types": ("dice",)}, "upstream_types too"),
    ],
)
def test_settings_that_give_a_tool_two_owners_or_none_are_refused(
    given: dict[str, tuple[str, ...]], why: str
) -> None:
    """T3: each has one."""
    with pytest.raises(ValidationError, match=why):
        Tools(**given)  # type: ignore[arg-type]
