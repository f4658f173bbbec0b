"""`extproc.logs`: lines for people or for machines."""

from __future__ import annotations

import json
import logging

import pytest

from engine.account import CURRENT, Account
from extproc import logs
from extproc.logs import ConsoleFormatter, Correlated, JsonFormatter


def record(message: str, *given: object, broken: bool = False) -> logging.LogRecord:
    error: Exception | None = None
    if broken:
        try:
            raise ZeroDivisionError("a bug")
        except ZeroDivisionError as caught:
            error = caught
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("engine.loop", logging.WARNING, "f.py", 1, message, given, info)
    made.created, made.msecs = 1_700_000_000.25, 250.0
    return made


def test_a_json_line_is_one_object_on_one_line() -> None:
    """Time in UTC, level, worker, logger, message."""
    line = JsonFormatter("host/0").format(record("two\nlines %s", "é"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "worker": "host/0",
        "logger": "engine.loop",
        "message": "two\nlines é",
    }


def test_a_json_line_holds_its_traceback() -> None:
    """Also on one line."""
    line = JsonFormatter("host/0").format(record("broke", broken=True))
    assert "ZeroDivisionError: a bug" in json.loads(line)["traceback"]
    assert "\n" not in line


@pytest.mark.parametrize(("style", "is_json"), [("json", True), ("console", False)])
def test_all_lines_go_to_standard_error(
    style: str, is_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the level on that is asked for."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        logs.configure("json" if style == "json" else "console", "warning", "host/0")
        logging.getLogger("engine.x").info("quiet")
        logging.getLogger("engine.x").warning("loud")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "quiet" not in printed.err
    [line] = printed.err.splitlines()
    assert line.startswith("{") == is_json
    assert "loud" in line


def test_a_line_of_a_run_has_its_ids() -> None:
    """Whatever is said while a response is made can be found by its id; fields of its own come with it."""
    account = Account("resp_1", "acme", "m", request_id="req-1")
    told = record("the store is away")
    token = CURRENT.set(account)
    try:
        assert Correlated().filter(told)
    finally:
        CURRENT.reset(token)
    line = json.loads(JsonFormatter("host/0").format(told))
    assert (line["response_id"], line["tenant"], line["request_id"]) == ("resp_1", "acme", "req-1")
    assert (
        ConsoleFormatter()
        .format(told)
        .endswith('the store is away response_id="resp_1" tenant="acme" request_id="req-1"')
    )


def test_a_name_from_outside_cannot_begin_a_line_of_its_own() -> None:
    """X4: a model's name is the client's."""
    told = record("response ended")
    told.fields = {"model": 'm\nERROR forged "x"'}
    for formatter in (ConsoleFormatter(), JsonFormatter("host/0")):
        assert "\n" not in formatter.format(told)
