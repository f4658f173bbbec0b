"""`engine.api.connectors`: what a connector may be, how it is changed, what a server is reached by."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api.connectors import (
    Connector,
    ConnectorFields,
    Secrets,
    parse_change,
    parse_connector,
    reached,
    read_fields,
    read_secrets,
)
from engine.api.json import encode
from engine.api.mcp import Approval, McpTool, ToolFilter, parse_mcp_tool
from engine.errors import InvalidRequest

URL = "https://mcp.example.com/x"
SECRET = "sk-secret"
NEEDED = {"server_label": "crm", "server_url": URL}
WHOLE = {
    **NEEDED,
    "description": "Customers",
    "authorization": f"Bearer {SECRET}",
    "headers": {"X-Key": SECRET},
    "allowed_tools": {"tool_names": ["a"], "read_only": True},
    "require_approval": {"never": {"tool_names": ["a"]}},
    "metadata": {"k": "v"},
}


def made(**fields: Any) -> Connector:
    return parse_connector(encode({**NEEDED, **fields}), "conn_1", 7)


def changed(before: Connector, **fields: Any) -> tuple[Connector, bool]:
    return parse_change(encode(fields), before.fields, lambda: before.secrets)


def untouched() -> Secrets:
    raise AssertionError("secrets are opened")


def test_a_connector_shows_all_but_its_secrets() -> None:
    """X4: neither in its object nor in what is printed of it; they are read back from what is stored."""
    connector = made(**WHOLE)
    assert json.loads(connector.fields.encoded()) == {
        "id": "conn_1",
        "object": "connector",
        "created_at": 7,
        "source": "tenant",
        "server_label": "crm",
        "server_url": URL,
        "description": "Customers",
        "allowed_tools": WHOLE["allowed_tools"],
        "require_approval": WHOLE["require_approval"],
        "has_authorization": True,
        "header_names": ["X-Key"],
        "metadata": {"k": "v"},
    }
    assert SECRET not in repr(connector) + repr(connector.secrets)
    assert read_fields(connector.fields.encoded()) == connector.fields
    assert read_secrets(encode(connector.secrets)) == Secrets(SECRET, {"X-Key": SECRET})


def test_what_is_not_given_has_a_default() -> None:
    """H1: null means absent."""
    nothing = dict.fromkeys(WHOLE.keys() - NEEDED.keys())
    assert made() == made(**nothing)
    assert not made().secrets


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"server_label": None}, "server_label", "missing_required_parameter"),
        ({"server_url": None}, "server_url", "missing_required_parameter"),
        ({"server_label": "1"}, "server_label", "invalid_value"),
        ({"server_url": "ftp://x"}, "server_url", "invalid_value"),
        ({"server_url": "https://u:p@h/"}, "server_url", "invalid_value"),
        ({"authorization": ""}, "authorization", "invalid_value"),
        ({"headers": {"host": "x"}}, "headers.host", "unsupported_value"),
        ({"headers": {"x": "a\nb"}}, "headers.x", "invalid_value"),
        ({"authorization": "a", "headers": {"Authorization": "b"}}, "authorization", "invalid_value"),
        ({"allowed_tools": {}}, "allowed_tools", "invalid_value"),
        ({"require_approval": "maybe"}, "require_approval", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"description": 1}, "description", "invalid_type"),
        ({"source": "settings"}, "source", "unknown_parameter"),
        ({"has_authorization": True}, "has_authorization", "unknown_parameter"),
    ],
)  # fmt: skip
def test_what_a_connector_cannot_be_is_refused(
    fields: dict[str, object], param: str, code: str
) -> None:
    """H1: by its name, new and changed alike."""
    with pytest.raises(InvalidRequest) as refused:
        made(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)
    if None not in fields.values():
        with pytest.raises(InvalidRequest) as refused:
            changed(made(), **fields)
        assert (refused.value.param, refused.value.code) == (param, code)


def test_what_a_change_leaves_out_stays() -> None:
    """X4: sealed secrets are not even opened where none of them changes."""
    before = made(**WHOLE)
    after, sealed_again = parse_change(b'{"server_label":"b"}', before.fields, untouched)
    assert (after.fields.server_label, sealed_again) == ("b", False)
    assert (after.fields.has_authorization, after.fields.header_names) == (True, ["X-Key"])
    assert parse_change(b"{}", before.fields, untouched)[0].fields == before.fields


def test_null_removes() -> None:
    """H1: what can be absent."""
    nothing = dict.fromkeys(WHOLE.keys() - NEEDED.keys())
    assert changed(made(**WHOLE), **nothing) == (made(), True)
    for name in NEEDED:
        with pytest.raises(InvalidRequest) as refused:
            changed(made(), **{name: None})
        assert refused.value.param == name


def test_one_secret_changes_and_the_other_stays() -> None:
    """X4: both are sealed again."""
    after, sealed_again = changed(made(**WHOLE), authorization="new")
    assert (after.secrets, sealed_again) == (Secrets("new", {"X-Key": SECRET}), True)
    both = {"authorization": "a", "headers": {"b": "c"}}
    assert parse_change(encode(both), made(**WHOLE).fields, untouched)[0].secrets == Secrets(
        "a", {"b": "c"}
    )
    with pytest.raises(InvalidRequest):
        changed(made(authorization="a"), headers={"Authorization": "b"})


@pytest.mark.parametrize(
    ("held", "given", "taken"),
    [
        (WHOLE, {}, False),
        (WHOLE, {"authorization": "new"}, False),
        (WHOLE, {"headers": None}, False),
        (WHOLE, {"authorization": "new", "headers": None}, True),
        ({"authorization": "a"}, {"authorization": None}, True),
        ({"authorization": "a"}, {"headers": {"x": "y"}}, False),
        ({}, {}, True),
    ],
)
def test_credentials_do_not_move_to_another_url(
    held: dict[str, object], given: dict[str, object], taken: bool
) -> None:
    """X4: whoever may change a connector cannot have its credentials sent to a server of his."""
    before = made(**held)
    if taken:
        after, sealed_again = changed(before, server_url="https://other/", **given)
        assert (after.url, sealed_again) == ("https://other/", True)
        return
    with pytest.raises(InvalidRequest) as refused:
        changed(before, server_url="https://other/", **given)
    assert (refused.value.param, refused.value.code) == ("server_url", "credentials_required")
    assert changed(before, server_url=URL)[1] is False


# -- reaching a server ---------------------------------------------------------------------------------


def declared(**fields: object) -> McpTool:
    return parse_mcp_tool({"type": "mcp", "server_label": "crm", **fields}, "tools[0]")


def shared(**fields: Any) -> Connector:
    secrets = Secrets(fields.pop("authorization", None), fields.pop("headers", {}))
    about = ConnectorFields(
        id="conn_settings_crm", created_at=0, source="settings", server_label="crm",
        server_url=None, **fields,
    )  # fmt: skip
    return Connector(about, URL, secrets)


def test_a_declared_server_is_reached_as_its_connector_says() -> None:
    """T5, R10: and shown as it was declared."""
    tool = reached(declared(), made(**WHOLE), "tools[0]")
    assert (tool.server_url, tool.connector) == (URL, "conn_1")
    assert tool.sent_headers() == {"x-key": SECRET, "authorization": f"Bearer {SECRET}"}
    assert tool.approval == Approval(never=ToolFilter(names=frozenset(("a",))))
    shown = tool.shown()
    assert shown["require_approval"] == WHOLE["require_approval"]
    assert shown["server_description"] == "Customers"
    assert shown["headers"] is None
    assert "server_url" not in shown
    assert SECRET not in repr(tool) + json.dumps(shown)
    named = reached(declared(connector_id="conn_1"), made(), "tools[0]")
    assert named.shown()["connector_id"] == "conn_1"


def test_the_declaration_goes_before_the_connector() -> None:
    """T5: field by field; a header of the client's replaces that of the same name."""
    tool = reached(
        declared(
            authorization="own",
            headers={"x-key": "own", "x-more": "more"},
            require_approval="always",
            server_description="Mine",
        ),
        made(**WHOLE),
        "tools[0]",
    )
    assert tool.sent_headers() == {"x-key": "own", "x-more": "more", "authorization": "Bearer own"}
    assert (tool.approval, tool.server_description) == (Approval("always"), "Mine")
    for own in ({"headers": {"Authorization": "own"}}, {"authorization": "own"}):
        for held in ({"headers": {"AUTHORIZATION": "a"}}, {"authorization": "a"}):
            sent = reached(declared(**own), made(**held), "tools[0]").sent_headers()
            assert list(sent) == ["authorization"]
            assert "own" in sent["authorization"]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, {"a", "a!", "b", "b!"}),
        (["a", "a!"], None, {"a", "a!"}),
        (["a", "a!"], ["a", "b"], {"a"}),
        ({"read_only": True}, ["a", "a!"], {"a!"}),
        ({"read_only": True}, {"read_only": True}, {"a!", "b!"}),
        ({"read_only": True}, {"read_only": False}, set()),
        ({"read_only": False, "tool_names": ["b"]}, {"tool_names": ["b", "b!"]}, {"b"}),
    ],
)
def test_both_filters_hold(one: object, other: object, both: set[str]) -> None:
    """T4: whichever of them is the connector's; a name with an exclamation mark is read-only."""
    for mine, its in ((one, other), (other, one)):
        tool = reached(declared(allowed_tools=mine), made(allowed_tools=its), "tools[0]")
        names = ("a", "a!", "b", "b!")
        assert {n for n in names if tool.allowed.matches(n, read_only="!" in n)} == both


@pytest.mark.parametrize(
    ("held", "own", "param"),
    [
        ({"authorization": "a"}, {"authorization": "b"}, "authorization"),
        ({"authorization": "a"}, {"headers": {"Authorization": "b"}}, "headers.authorization"),
        ({"headers": {"Authorization": "a"}}, {"authorization": "b"}, "authorization"),
        ({"headers": {"X-Team": "a"}}, {"headers": {"x-tEAM": "b"}}, "headers.x-team"),
        ({"headers": {"X-Team": "a"}}, {"authorization": "b"}, None),
        ({"authorization": "a"}, {"headers": {"x-team": "b"}}, None),
    ],
)
def test_what_an_operator_has_set_is_not_replaced(
    held: dict[str, Any], own: dict[str, Any], param: str | None
) -> None:
    """X4: a header may say what its sender is allowed to do; others can be added."""
    if param is None:
        assert len(reached(declared(**own), shared(**held), "tools[0]").sent_headers()) == 2
        return
    with pytest.raises(InvalidRequest) as refused:
        reached(declared(**own), shared(**held), "tools[0]")
    assert (refused.value.param, refused.value.code) == (f"tools[0].{param}", "connector_read_only")


def test_an_approval_holds_for_the_connector_as_it_was() -> None:
    """T6: another URL or other credentials are another server."""
    prints = {
        reached(declared(), connector, "tools[0]").fingerprint(b"key")
        for connector in (made(), made(authorization="a"), made(server_url="https://other/"))
    }
    assert len(prints) == 3
