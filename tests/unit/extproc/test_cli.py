"""`extproc.cli`: what the `holdfast` command prints and with which status it ends."""

from __future__ import annotations

import pytest

from extproc import cli


def test_config_prints_the_settings_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output holds the settings file and nothing else."""
    status = cli.run(["config"], {"PORT": "9000", "DATABASE_URL": "postgresql://u:hunter2@h/d"})

    printed = capsys.readouterr()
    assert status == 0
    assert "port = 9000" in printed.out
    assert "hunter2" not in printed.out
    assert printed.err == ""


def test_config_prints_the_envoy_config(capsys: pytest.CaptureFixture[str]) -> None:
    """For an Envoy of one's own."""
    assert cli.run(["config", "--envoy"], {"PORT": "9000"}) == 0

    assert "port_value: 9000" in capsys.readouterr().out


def test_config_prints_the_envoy_config_for_requests_that_travel_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--inline` is `envoy.inline`; `up` has it, too."""
    assert cli.run(["config", "--envoy", "--inline"], {}) == 0
    assert "responses-inline" in capsys.readouterr().out

    assert cli.run(["up", "--inline", "--port", "99999"], {}) == 2
    assert "listen.port" in capsys.readouterr().err


def test_wrong_settings_end_with_status_2_and_a_line_for_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No traceback for a typing error."""
    status = cli.run(["config"], {"PORT": "x", "HOLDFAST_SIDECAR__WORKERS": "0"})

    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("holdfast: HOLDFAST_") for line in lines)


def test_config_prints_the_config_without_ext_proc(capsys: pytest.CaptureFixture[str]) -> None:
    """For an Envoy before 1.37: it needs to know where the workers speak HTTP."""
    assert cli.run(["config", "--plain"], {}) == 2
    assert "HOLDFAST_HTTP__LISTEN" in capsys.readouterr().err

    environ = {"HOLDFAST_HTTP__LISTEN": "unix:/run/h.sock", "HOLDFAST_SIDECAR__WORKERS": "2"}
    assert cli.run(["config", "--plain"], environ) == 0
    printed = capsys.readouterr().out
    assert "/run/h.sock" in printed
    assert "/run/h.sock-1" in printed
    assert "ExternalProcessor" not in printed


@pytest.mark.parametrize(
    ("environ", "address", "named"),
    [
        ({}, ":8080", "HOLDFAST_MODEL__URL"),
        ({"BACKEND_URL": "http://m"}, ":8080", "HOLDFAST_POSTGRES__URL"),
        ({"BACKEND_URL": "http://m"}, "8080x", "HOLDFAST_HTTP__LISTEN"),
        ({"BACKEND_URL": "http://m"}, "unix:" + "x" * 100, "socket"),
    ],
)
def test_serving_without_envoy_needs_a_model_and_a_database(
    environ: dict[str, str], address: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """H1: `--http` is `http.listen`, with calls of the model straight to its URL."""
    assert cli.run(["serve", "--http", address], environ) == 2

    assert named in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_what_needs_a_database_says_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The name of the missing setting is in the message."""
    assert cli.run([command], {}) == 2

    assert "HOLDFAST_POSTGRES__URL" in capsys.readouterr().err


def test_an_option_of_up_is_checked_like_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """`--port` is `listen.port`, with the same bounds and the same message."""
    assert cli.run(["up", "--port", "99999"], {}) == 2

    assert "listen.port" in capsys.readouterr().err


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that somebody types."""
    with pytest.raises(SystemExit) as ended:
        cli.run(["--help"], {})

    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for command in ("holdfast up", "holdfast serve", "holdfast migrate", "holdfast config"):
        assert command in printed


def test_an_unknown_command_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own way, kept."""
    with pytest.raises(SystemExit) as ended:
        cli.run(["serv"], {})

    assert ended.value.code == 2
    assert "serve" in capsys.readouterr().err


def test_version_names_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    """For a bug report."""
    assert cli.run(["version"], {}) == 0

    assert capsys.readouterr().out.startswith("holdfast ")


def test_health_and_drain_end_with_a_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The probe and the preStop hook of a pod: nobody serves here, and so no client has to leave."""
    environ = {"HOLDFAST_SIDECAR__RUN_DIR": "/nowhere"}

    assert cli.run(["health"], environ) == 1
    assert cli.run(["drain", "--least", "5", "--most", "60"], environ) == 0
    printed = capsys.readouterr()
    assert printed.err == "holdfast: no worker takes requests in /nowhere\n"
    assert printed.out == "No request runs any more.\n"
