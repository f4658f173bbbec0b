"""What a running stack uses, as the commands beside it learn it."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc import cli
from extproc.settings import Settings
from extproc.up.effective import told, used_beside


@pytest.fixture
def running(tmp_path: Path) -> Settings:
    """The settings of a stack, with what it chose by itself."""
    environ = {
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": "postgresql://holdfast@/private",
        "HOLDFAST_SIDECAR__WORKERS": "2",
        "HOLDFAST_MODEL__API_KEY": "sk-secret",
    }
    settings = Settings.load(None, environ)
    settings.sidecar.run_dir.mkdir(parents=True)
    return settings


def test_commands_use_what_the_stack_uses(running: Settings, tmp_path: Path) -> None:
    """H3: DATA_DIR is enough, while it runs."""
    beside = {"DATA_DIR": str(tmp_path)}
    alone = Settings.load(None, beside)
    assert used_beside(alone) == {}
    with told(running):
        assert Settings.load(None, dict(used_beside(alone))) == running
    assert used_beside(alone) == {}


def test_its_secrets_are_for_its_user_alone(running: Settings) -> None:
    """X4: whoever may read the file may read the processes' environment as well."""
    with told(running):
        [file] = running.sidecar.run_dir.iterdir()
        assert "sk-secret" in file.read_text()
        assert file.stat().st_mode & 0o777 == 0o600
    assert list(running.sidecar.run_dir.iterdir()) == []


def test_what_is_said_wins(
    running: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H3: a database that the command is given is the one that it uses, whatever runs beside it."""
    seen: list[Settings] = []

    async def ready(settings: Settings) -> bool:
        seen.append(settings)
        return True

    monkeypatch.setattr("extproc.up.lifecycle.ready", ready)
    with told(running):
        given = {"DATA_DIR": str(tmp_path), "DATABASE_URL": "postgresql://other@db/x"}
        assert cli.run(["health"], given) == 0
    [settings] = seen
    assert settings.postgres.url is not None
    assert settings.postgres.url.get_secret_value() == "postgresql://other@db/x"
    assert settings.sidecar.workers == 2


def test_paths_do_not_depend_on_where_a_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H3: `holdfast up` was given relative ones."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.load(None, {"DATA_DIR": "here"})
    settings.sidecar.run_dir.mkdir(parents=True)
    with told(settings):
        used = used_beside(settings)
    assert used["HOLDFAST_DATA_DIR"] == str(tmp_path / "here")
    assert used["HOLDFAST_SIDECAR__RUN_DIR"] == str(tmp_path / "here" / "run")
