"""`extproc.envoy`: the model's URL and the rendered config, without an Envoy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extproc.envoy.config import PLAIN_TEMPLATE, TEMPLATE, only, render, render_plain
from extproc.envoy.endpoint import ModelEndpoint, parse_model_url, parse_model_urls
from extproc.settings import Settings, SettingsError

TOKENS = {
    "HOLDFAST_TENANCY__MODE": "required",
    "HOLDFAST_TENANCY__SOURCE": "jwt",
    "HOLDFAST_JWT__ISSUER": "https://issuer",
    "HOLDFAST_JWT__AUDIENCES": "a,b",
    "HOLDFAST_JWT__JWKS_FILE": "keys.json",
}


def rendered(**environ: str) -> str:
    return render(Settings.load(None, environ))


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://vllm", ModelEndpoint("vllm", "vllm", 80)),
        ("http://vllm:8000/", ModelEndpoint("vllm:8000", "vllm", 8000)),
        ("http://vllm:8000/v1", ModelEndpoint("vllm:8000", "vllm", 8000)),
        ("http://vllm:8000/v1/", ModelEndpoint("vllm:8000", "vllm", 8000)),
        ("https://h/base", ModelEndpoint("h", "h", 443, tls=True, base="/base")),
        ("https://h/base/v1", ModelEndpoint("h", "h", 443, tls=True, base="/base")),
        ("https://h/a/b/v1/", ModelEndpoint("h", "h", 443, tls=True, base="/a/b")),
        ("http://[::1]:8000", ModelEndpoint("[::1]:8000", "::1", 8000)),
        ("unix:/run/m.sock", ModelEndpoint("localhost", socket=Path("/run/m.sock"))),
        ("unix:.data/m.sock", ModelEndpoint("localhost", socket=Path(".data/m.sock"))),
    ],
)
def test_a_base_url_says_where_and_below_which_path(url: str, endpoint: ModelEndpoint) -> None:
    """With or without a final /v1, as people write base URLs."""
    assert parse_model_url(url) == endpoint


@pytest.mark.parametrize(
    ("urls", "problem"),
    [
        ("http://a,https://a", "scheme"),
        ("http://a/x,http://a/y", "path"),
        ("http://a,http://10.0.0.1", "addresses"),
        ("http://a,unix:/s", "addresses"),
        ("https://a,https://b", "host name"),
        ("http://a,", "http://"),
    ],
)
def test_servers_that_are_no_one_cluster_are_refused(urls: str, problem: str) -> None:
    """H1: what Envoy could not treat alike is said at the start."""
    with pytest.raises(ValueError, match=problem):
        parse_model_urls(urls)
    with pytest.raises(SettingsError):
        rendered(BACKEND_URL=urls)


def test_several_servers_are_several_endpoints() -> None:
    """Promise 5: each with its own Host; the first says what is common."""
    config = rendered(BACKEND_URL="http://a:1/base, http://b/base/v1")

    assert [server.authority for server in parse_model_urls("http://a:1, http://b")] == ["a:1", "b"]
    assert '"hostname": "a:1"' in config
    assert '"hostname": "b"' in config
    assert config.count('prefix_rewrite: "/base/"') == 3
    assert len(parse_model_urls("https://a:1,https://a:2")) == 2
    assert len(parse_model_urls("unix:/a,http://10.0.0.1")) == 2


def test_without_envoy_nobody_chooses_among_servers() -> None:
    """H1: `model.via = "url"` is one server."""
    with pytest.raises(SettingsError, match="only Envoy"):
        Settings.load(None, {"BACKEND_URL": "http://a,http://b", "HOLDFAST_MODEL__VIA": "url"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("HEALTH_PATH", "health"), ("PICKER_URL", "epp:9002"), ("PICKER_URL", "http://epp:9002/x")],
)
def test_routing_settings_that_make_no_sense_are_refused(name: str, value: str) -> None:
    """H1: at the start, by name."""
    with pytest.raises(SettingsError, match=name):
        rendered(**{f"HOLDFAST_ROUTING__{name}": value})


def test_embeddings_come_from_the_model_servers_unless_they_have_their_own() -> None:
    """Promise 5: a cluster and a route of its own, below its path, with its name to verify."""
    upstream = {
        "HOLDFAST_EMBEDDINGS__SOURCE": "upstream",
        "HOLDFAST_EMBEDDINGS__MODEL": "bge-m3",
        "HOLDFAST_EMBEDDINGS__API_KEY": "sk-secret",
    }
    own = {"HOLDFAST_EMBEDDINGS__URL": "https://tei.internal:8443/base/v1"}

    assert "embeddings" not in rendered()
    with pytest.raises(SettingsError, match="there is no url"):
        rendered(**upstream)
    config = rendered(**upstream, **own)
    assert 'prefix_rewrite: "/base/v1/embeddings"' in config
    assert '"exact": "tei.internal"' in config
    assert '"hostname": "tei.internal:8443"' in config
    assert "sk-secret" not in config


def test_no_placeholder_is_left_over() -> None:
    """The template and the code name the same values."""
    assert "${" in TEMPLATE.read_text(encoding="utf-8")
    assert "${" not in rendered()
    assert "${" in PLAIN_TEMPLATE.read_text(encoding="utf-8")
    assert "${" not in render_plain(
        Settings.load(None, {"HOLDFAST_HTTP__LISTEN": "unix:/run/h.sock"})
    )


def test_every_worker_is_an_endpoint_of_its_own() -> None:
    """E3: connections to one socket are not balanced, endpoints are."""
    config = rendered(HOLDFAST_SIDECAR__WORKERS="3", DATA_DIR="/d")

    assert re.findall(r"/d/run/worker-\d\.sock", config) == [
        "/d/run/worker-0.sock",
        "/d/run/worker-1.sock",
        "/d/run/worker-2.sock",
    ]


def test_no_secret_is_in_the_config() -> None:
    """X4: the file lies in the run directory."""
    config = rendered(DATABASE_URL="postgresql://u:hunter2@h/d", HOLDFAST_MODEL__API_KEY="hunter2")

    assert "hunter2" not in config


def test_admin_and_model_listeners_are_unix_sockets() -> None:
    """X6: the public port is the only one."""
    lines = [line for line in rendered().splitlines() if "socket_address" in line]
    addresses = [line for line in lines if '"socket_address"' not in line]

    assert len(addresses) == 1
    assert "127.0.0.1" in addresses[0]


def test_a_value_cannot_leave_its_place() -> None:
    """Values are JSON: quotes and line breaks in them stay inside."""
    config = rendered(HOLDFAST_LISTEN__HOST='"}\nadmin: {')

    assert '"\\"}\\nadmin: {"' in config


def test_a_name_is_resolved_and_an_address_is_not() -> None:
    """A DNS lookup of an address is an error in Envoy."""
    assert 'type: "STRICT_DNS"' in rendered(BACKEND_URL="http://localhost:1")
    assert 'type: "STRICT_DNS"' not in rendered(BACKEND_URL="http://127.0.0.1:1")
    assert 'type: "STRICT_DNS"' not in rendered(BACKEND_URL="http://[::1]:1")


def test_tls_is_verified_against_the_name_and_the_trusted_authorities() -> None:
    """An `https` model server that cannot prove who it is gets no conversation."""
    config = rendered(BACKEND_URL="https://models.example.com", HOLDFAST_MODEL__CA_FILE="/ca.pem")

    assert '"sni": "models.example.com"' in config
    assert '"exact": "models.example.com"' in config
    assert '"filename": "/ca.pem"' in config
    assert "UpstreamTlsContext" not in rendered(BACKEND_URL="http://models.example.com")


def test_a_block_is_there_only_if_it_is_asked_for() -> None:
    """Also one within another; its marks are never there."""
    template = "a\n  # <if x>\n  b\n  # <if y>\n  c\n  # </if y>\n  # </if x>\nd\n"
    assert only({"x", "y"}, template) == "a\n  b\n  c\nd\n"
    assert only({"x"}, template) == "a\n  b\nd\n"
    assert only({"y"}, template) == only(set(), template) == "a\nd\n"


HEADER_BLOCKS = {"identity", "own_tenant_header", "health", "embeddings"}
ENVOY_BLOCKS = {
    *HEADER_BLOCKS, "jwt", "jwks_file", "jwks_uri", "picker", "inline", "model_listener",
    "access_log", "rate_limit", "no_rate_limit",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "known"),
    [(TEMPLATE, ENVOY_BLOCKS), (PLAIN_TEMPLATE, HEADER_BLOCKS)],
    ids=["envoy", "plain"],
)
def test_every_block_of_the_template_is_known_and_closed(path: Path, known: set[str]) -> None:
    """A misspelled mark would be a comment, and its block always there."""
    template = path.read_text(encoding="utf-8")
    opened = re.findall(r"^ +# <if (\w+)>$", template, re.MULTILINE)
    closed = re.findall(r"^ +# </if (\w+)>$", template, re.MULTILINE)
    assert set(opened) == known
    assert sorted(opened) == sorted(closed)
    assert len(re.findall(r"^ *# </?if", only(known, template), re.MULTILINE)) == 0


def test_requests_travel_on_only_where_it_is_asked_for() -> None:
    """One more route; the model listener goes only where nothing else would use it."""
    inline = {"HOLDFAST_ENVOY__INLINE": "true"}
    assert "responses-inline" not in rendered()
    assert "responses-inline" in rendered(**inline)
    assert "stat_prefix: model" in rendered(**inline)
    assert "stat_prefix: model" not in rendered(**inline, HOLDFAST_MODEL__VIA="request")


def test_filters_of_identity_are_absent_where_tenancy_is_off() -> None:
    """No cost for those who do not need it."""
    config = rendered()
    for name in ("jwt_authn", "filters.http.rbac", "missing_identity", "cluster: jwks"):
        assert name not in config
        assert name in rendered(**TOKENS) or name == "cluster: jwks"


@pytest.mark.parametrize("forward", [True, False])
def test_a_token_is_kept_from_the_model_server_unless_a_setting_says_otherwise(
    forward: bool,
) -> None:
    """X4: by the same setting that forwards it on model turns."""
    config = rendered(**TOKENS, HOLDFAST_MODEL__FORWARD_AUTHORIZATION=str(forward))
    assert f"forward: {str(forward).lower()}\n" in config
    assert 'audiences: ["a", "b"]' in config


def test_without_ext_proc_a_client_cannot_say_whose_its_request_is() -> None:
    """X2, X6: the header is taken from clients unless a gateway sends it; nobody's is refused."""
    environ = {
        "HOLDFAST_HTTP__LISTEN": "unix:/run/h.sock",
        "HOLDFAST_TENANCY__MODE": "required",
        "HOLDFAST_TENANCY__SOURCE": "header",
        "HOLDFAST_TENANCY__HEADER": "x-tenant",
    }
    own = render_plain(Settings.load(None, environ))
    gateways = render_plain(
        Settings.load(None, {**environ, "HOLDFAST_TENANCY__HEADER_FROM_GATEWAY": "true"})
    )
    off = render_plain(Settings.load(None, {"HOLDFAST_HTTP__LISTEN": "unix:/run/h.sock"}))

    assert '- remove: "x-tenant"' in own
    assert "- remove: " not in gateways + off
    for config, asked in ((own, True), (gateways, True), (off, False)):
        assert ("envoy.filters.http.rbac" in config) == asked
        assert ("missing_identity" in config) == asked


def test_both_configs_ask_for_identity_in_the_same_words() -> None:
    """X2: what refuses nobody's requests is one thing, written down twice."""
    templates = [path.read_text(encoding="utf-8") for path in (TEMPLATE, PLAIN_TEMPLATE)]
    filters = [text[text.index("http_filters:") :] for text in templates]
    found = [
        re.findall(r"# <if identity>\n(.*?)# </if identity>", text, re.DOTALL) for text in filters
    ]

    assert len(found[0]) == 1
    assert found[0] == found[1]
