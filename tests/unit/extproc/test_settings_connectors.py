"""`extproc.settings_connectors` and `extproc.connectors`: the operator's connectors."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from extproc.connectors import shared_connectors, shared_policies
from extproc.outbound.policy import OutboundPolicy
from extproc.settings import Settings, SettingsError
from extproc.settings_docs import as_toml

SECRET = "sk-of-the-operator"
WHOLE: dict[str, Any] = {
    "label": "crm",
    "url": "http://crm.internal:81/mcp",
    "description": "Customers",
    "authorization": SECRET,
    "headers": {"X-Team": SECRET},
    "networks": ["10.1.0.0/16", "fd00::/8"],
    "allowed_tools": ["a"],
    "require_approval": "never",
}


def loaded(*connectors: dict[str, Any]) -> Settings:
    return Settings.load(None, {"HOLDFAST_CONNECTORS__SHARED": json.dumps(connectors)})


def test_a_file_and_the_environment_say_the_same(tmp_path: Path) -> None:
    """H1: tables in a file, JSON in a variable; a worker is told by its environment."""
    file = tmp_path / "holdfast.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in WHOLE.items() if key != "headers"]
    lines += ["[connectors.shared.headers]", f'X-Team = "{SECRET}"']
    file.write_text("[[connectors.shared]]\n" + "\n".join(lines))
    settings = Settings.load(file, {})
    assert settings.connectors == loaded(WHOLE).connectors
    assert Settings.load(None, settings.environment()).connectors == settings.connectors
    assert settings.having(listen={"port": 1}).connectors == settings.connectors


def test_a_connector_of_the_operators_is_shown_without_what_is_his() -> None:
    """X4: not the URL, not the credentials; not in `holdfast config` either."""
    settings = loaded(WHOLE)
    [connector] = shared_connectors(settings.connectors.shared)
    shown = json.loads(connector.fields.encoded())
    assert (shown["id"], shown["source"], shown["server_url"]) == (
        "conn_settings_crm",
        "settings",
        None,
    )
    assert (shown["has_authorization"], shown["header_names"]) == (True, ["X-Team"])
    assert (connector.url, connector.secrets.authorization) == (WHOLE["url"], SECRET)
    printed = as_toml(settings)
    assert "# shared: crm" in printed
    for text in (printed, repr(settings), repr(connector), json.dumps(shown)):
        assert SECRET not in text


def test_a_connector_reaches_its_own_host_in_its_own_networks_only() -> None:
    """X3: private networks are given to each one by name, and `http` where its URL says so."""
    general = OutboundPolicy(
        only_hosts=("a",), private_hosts=("b",), networks=(ip_network("192.168.0.0/16"),)
    )
    public = {"label": "wiki", "url": "https://Wiki.example.com/mcp"}
    policies = shared_policies(loaded(WHOLE, public).connectors.shared, general)
    assert policies == {
        "conn_settings_crm": OutboundPolicy(
            allow_http=True,
            only_hosts=("crm.internal",),
            private_hosts=("b",),
            networks=(*general.networks, ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
            ports=frozenset((81,)),
        ),
        "conn_settings_wiki": OutboundPolicy(
            only_hosts=("wiki.example.com",),
            private_hosts=("b",),
            networks=general.networks,
            ports=frozenset((443,)),
        ),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "1"},
        {"label": None},
        {"url": "ftp://x"},
        {"url": f"https://u:{SECRET}@h/"},
        {"networks": ["10.0.0.1/8"]},
        {"headers": {"host": SECRET}},
        {"headers": {"x": f"{SECRET}\n"}},
        {"headers": {"Authorization": SECRET}},
        {"require_approval": "maybe"},
        {"x": SECRET},
    ],
)
def test_what_cannot_be_a_connector_is_refused(wrong: dict[str, Any]) -> None:
    """H1: by name, without repeating a value."""
    with pytest.raises(SettingsError, match=r"connectors|CONNECTORS") as refused:
        loaded({**WHOLE, **wrong})
    assert SECRET not in str(refused.value)


def test_labels_are_given_once() -> None:
    """T5: a request names them."""
    with pytest.raises(SettingsError, match="two connectors have the label crm"):
        loaded(WHOLE, WHOLE)


def test_what_is_no_json_is_not_repeated() -> None:
    """X4: it holds secrets."""
    with pytest.raises(SettingsError, match="must be a JSON array") as refused:
        Settings.load(None, {"HOLDFAST_CONNECTORS__SHARED": f"[{SECRET}"})
    assert SECRET not in str(refused.value)
