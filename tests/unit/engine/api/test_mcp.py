"""`engine.api.mcp`: the `mcp` tool of a request, its filters, and what is echoed of it (H1, X4)."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api.mcp import Approval, McpTool, ToolFilter, check_labels, parse_mcp_tool
from engine.errors import InvalidRequest

URL = "https://mcp.example.com/s/secret-path/mcp?key=secret-query"
BASE: dict[str, Any] = {"type": "mcp", "server_label": "crm", "server_url": URL}


def parse(**fields: object) -> McpTool:
    return parse_mcp_tool({**BASE, **fields}, "tools[0]")


def test_a_server_needs_a_label_and_a_url() -> None:
    """All else has a default: every tool, and consent to each call, as in the API."""
    tool = parse()

    assert (tool.server_label, tool.server_url, tool.connector_id) == ("crm", URL, None)
    assert tool.allowed == ToolFilter()
    assert tool.approval.needed("any", read_only=True)
    assert tool.sent_headers() == {}


def test_a_connector_stands_for_a_url() -> None:
    """Which connectors there are is not known here."""
    tool = parse(server_url=None, connector_id="connector_gmail")

    assert (tool.server_url, tool.connector_id) == (None, "connector_gmail")
    assert tool.shown()["connector_id"] == "connector_gmail"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"server_label": None}, "server_label", "missing_required_parameter"),
        ({"server_label": "1st"}, "server_label", "invalid_value"),
        ({"server_label": "a b"}, "server_label", "invalid_value"),
        ({"server_label": "a" * 65}, "server_label", "invalid_value"),
        ({"server_label": 1}, "server_label", "invalid_type"),
        ({"server_url": 1}, "server_url", "invalid_type"),
        ({"server_url": "ftp://x/"}, "server_url", "invalid_value"),
        ({"server_url": "https:///x"}, "server_url", "invalid_value"),
        ({"server_url": "https://u:p@h/"}, "server_url", "invalid_value"),
        ({"server_url": "https://h/\r\nx: y"}, "server_url", "invalid_value"),
        ({"server_url": "https://good\\@127.0.0.1/"}, "server_url", "invalid_value"),
        ({"server_url": "https://[::1/"}, "server_url", "invalid_value"),
        ({"server_url": "https://h/" + "a" * 2000}, "server_url", "invalid_value"),
        ({"connector_id": "c"}, "connector_id", "invalid_value"),
        ({"server_url": None, "connector_id": "a/b"}, "connector_id", "invalid_value"),
        ({"headers": []}, "headers", "invalid_type"),
        ({"headers": {"a b": "c"}}, "headers", "invalid_value"),
        ({"headers": {"A": "b", "a": "b"}}, "headers", "invalid_value"),
        ({"headers": {"A": 1}}, "headers.A", "invalid_type"),
        ({"headers": {"A": "b\r\nc: d"}}, "headers.A", "invalid_value"),
        ({"headers": {"A": ""}}, "headers.A", "invalid_value"),
        ({"headers": {f"h{i}": "v" for i in range(65)}}, "headers", "invalid_value"),
        ({"headers": {"Host": "x"}}, "headers.Host", "unsupported_value"),
        ({"headers": {"Mcp-Session-Id": "x"}}, "headers.Mcp-Session-Id", "unsupported_value"),
        ({"headers": {"Accept-Encoding": "br"}}, "headers.Accept-Encoding", "unsupported_value"),
        ({"authorization": 1}, "authorization", "invalid_type"),
        ({"authorization": "a\nb"}, "authorization", "invalid_value"),
        (
            {"authorization": "t", "headers": {"Authorization": "x"}},
            "authorization",
            "invalid_value",
        ),
        ({"require_approval": "sometimes"}, "require_approval", "invalid_value"),
        ({"require_approval": 1}, "require_approval", "invalid_type"),
        ({"require_approval": {"maybe": {}}}, "require_approval.maybe", "unknown_parameter"),
        ({"require_approval": {"never": {}}}, "require_approval.never", "invalid_value"),
        (
            {"require_approval": {"never": {"tool_names": "a"}}},
            "require_approval.never.tool_names",
            "invalid_type",
        ),
        ({"allowed_tools": "a"}, "allowed_tools", "invalid_type"),
        ({"allowed_tools": [1]}, "allowed_tools[0]", "invalid_type"),
        ({"allowed_tools": ["a"] * 1025}, "allowed_tools", "invalid_value"),
        ({"allowed_tools": {}}, "allowed_tools", "invalid_value"),
        ({"allowed_tools": {"read_only": 1}}, "allowed_tools.read_only", "invalid_type"),
        ({"server_description": 1}, "server_description", "invalid_type"),
        ({"defer_loading": True}, "defer_loading", "unsupported_value"),
        ({"tunnel_id": "t"}, "tunnel_id", "unsupported_value"),
        ({"allowed_callers": ["programmatic"]}, "allowed_callers", "unsupported_value"),
        ({"x": 1}, "x", "unknown_parameter"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_path(
    fields: dict[str, object], param: str, code: str
) -> None:
    """H1."""
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)

    assert (refused.value.param, refused.value.code) == (f"tools[0].{param}", code)


@pytest.mark.parametrize(
    "fields",
    [
        {"server_url": "https://user:secret@h/"},
        {"authorization": "secret\n"},
        {"headers": {"A": "secret\n"}},
    ],
)
def test_a_refusal_does_not_repeat_a_secret(fields: dict[str, object]) -> None:
    """X4: errors are logged and shown."""
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)

    assert "secret" not in refused.value.message


def test_nulls_and_defaults_mean_absent() -> None:
    """H1."""
    nulls = dict.fromkeys(
        ("headers", "authorization", "allowed_tools", "require_approval", "tunnel_id", "x")
    )
    plain = {"defer_loading": False, "allowed_callers": ["direct"]}
    assert parse(**nulls, **plain) == parse()


@pytest.mark.parametrize("given", ["secret-token", "Bearer secret-token"])
def test_credentials_are_sent_and_not_shown(given: str) -> None:
    """X4, R10: of the headers only the names are echoed, of the URL only the origin."""
    tool = parse(authorization=given, headers={"X-Key": "secret-key"})

    assert tool.sent_headers() == {"x-key": "secret-key", "authorization": "Bearer secret-token"}
    assert tool.shown() == {
        "type": "mcp",
        "server_label": "crm",
        "server_description": None,
        "server_url": "https://mcp.example.com/<redacted>",
        "headers": {"X-Key": "<redacted>"},
        "allowed_tools": None,
        "require_approval": "always",
    }
    assert "secret" not in repr(tool)


def test_filters_are_echoed_as_they_came() -> None:
    """R10."""
    allowed, approval = {"read_only": True}, {"never": {"tool_names": ["a"]}}
    shown = parse(allowed_tools=allowed, require_approval=approval).shown()

    assert (shown["allowed_tools"], shown["require_approval"]) == (allowed, approval)


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (None, {"read", "write"}),
        (["read"], {"read"}),
        ([], set()),
        ({"tool_names": ["write"]}, {"write"}),
        ({"read_only": True}, {"read"}),
        ({"read_only": False}, {"write"}),
        ({"tool_names": ["write"], "read_only": True}, set()),
    ],
)
def test_allowed_tools_are_those_that_meet_every_criterion(
    allowed: object, names: set[str]
) -> None:
    """T4: a hard limit."""
    tool = parse(allowed_tools=allowed)
    offered = {"read": True, "write": False}

    assert {n for n, ro in offered.items() if tool.allowed.matches(n, read_only=ro)} == names


@pytest.mark.parametrize(
    ("asked", "needing"),
    [
        ("always", {"read", "write"}),
        ("never", set()),
        ({"never": {"read_only": True}}, {"write"}),
        ({"always": {"tool_names": ["read"]}}, {"read", "write"}),
        ({"always": {"tool_names": ["read"]}, "never": {"read_only": True}}, {"read", "write"}),
        ({"never": {"tool_names": ["read", "write"]}}, set()),
    ],
)
def test_consent_is_needed_unless_a_filter_says_never(asked: object, needing: set[str]) -> None:
    """T6: `always` wins, and what no filter names needs consent."""
    approval: Approval = parse(require_approval=asked).approval
    offered = {"read": True, "write": False}

    assert {n for n, ro in offered.items() if approval.needed(n, read_only=ro)} == needing


def test_two_servers_have_two_labels() -> None:
    """T5."""
    check_labels([("tools[0]", "s"), ("tools[2]", "other")])

    with pytest.raises(InvalidRequest) as refused:
        check_labels([("tools[0]", "s"), ("tools[2]", "s")])
    assert refused.value.param == "tools[2].server_label"


def test_a_fingerprint_is_of_the_server_and_the_credentials() -> None:
    """T6: an approval holds for the same server and credentials, whatever else the request says."""
    key = b"k"
    one = parse(authorization="t", headers={"A": "1", "B": "2"}).fingerprint(key)

    same = parse(authorization="Bearer t", headers={"b": "2", "a": "1"}, require_approval="never")
    assert same.fingerprint(key) == one
    assert parse(authorization="u", headers={"A": "1", "B": "2"}).fingerprint(key) != one
    assert parse(authorization="t", headers={"A": "1"}).fingerprint(key) != one
    assert same.fingerprint(b"other key") != one
