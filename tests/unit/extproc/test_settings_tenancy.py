"""`extproc.settings_tenancy`: a combination that cannot tell tenants apart is refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.settings import Settings, SettingsError
from extproc.settings_docs import as_toml

REQUIRED = {"TENANCY__MODE": "required"}
HEADER = {**REQUIRED, "TENANCY__SOURCE": "header", "TENANCY__HEADER": "x-tenant"}
METADATA = {
    **REQUIRED,
    "TENANCY__SOURCE": "metadata",
    "TENANCY__METADATA_NAMESPACE": "ns",
    "TENANCY__METADATA_PATH": "a,b",
}
ATTRIBUTE = {**REQUIRED, "TENANCY__SOURCE": "attribute", "TENANCY__ATTRIBUTE": "connection.id"}
JWT = {
    **REQUIRED,
    "TENANCY__SOURCE": "jwt",
    "JWT__ISSUER": "https://issuer",
    "JWT__AUDIENCES": "a, b",
    "JWT__JWKS_FILE": "keys.json",
}


def load(environ: dict[str, str]) -> Settings:
    return Settings.load(None, {f"HOLDFAST_{name}": value for name, value in environ.items()})


GATEWAY = {**HEADER, "TENANCY__HEADER_FROM_GATEWAY": "true"}
SOCKET = {"HTTP__LISTEN": "unix:/run/h.sock"}
PORT = {"HTTP__LISTEN": ":8080"}
ALONE = {"MODEL__VIA": "url", "MODEL__URL": "http://m"}


@pytest.mark.parametrize(
    "environ",
    [
        *({}, HEADER, METADATA, ATTRIBUTE, JWT),
        *(SOCKET, PORT, {**PORT, **ALONE}),
        *({**HEADER, **SOCKET}, {**GATEWAY, **PORT}, {**GATEWAY, **SOCKET, **ALONE}),
    ],
)
def test_a_combination_that_fits_is_taken(environ: dict[str, str], tmp_path: Path) -> None:
    """And reaches the workers as it is, by their environment, or by a printed file."""
    settings = load(environ)
    assert Settings.load(None, settings.environment()) == settings
    file = tmp_path / "holdfast.toml"
    file.write_text(as_toml(settings), encoding="utf-8")
    assert Settings.load(file, {}) == settings


def test_a_list_is_written_with_commas_or_as_a_list(tmp_path: Path) -> None:
    """The environment has no lists, TOML has."""
    assert load(JWT).jwt.audiences == ("a", "b")
    file = tmp_path / "holdfast.toml"
    file.write_text('[jwt]\naudiences = ["a", "b"]\n')
    environ = {f"HOLDFAST_{name}": value for name, value in JWT.items() if "AUD" not in name}
    assert Settings.load(file, environ) == load(JWT)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (REQUIRED, "mode 'required' needs a source"),
        ({"TENANCY__SOURCE": "jwt"}, "mode is 'off'"),
        ({**HEADER, "TENANCY__HEADER": ""}, "source 'header' needs header"),
        ({**METADATA, "TENANCY__METADATA_PATH": ""}, "source 'metadata' needs metadata_path"),
        ({**METADATA, "TENANCY__METADATA_NAMESPACE": ""}, "needs metadata_namespace"),
        ({**ATTRIBUTE, "TENANCY__ATTRIBUTE": ""}, "source 'attribute' needs attribute"),
        ({**HEADER, "TENANCY__ATTRIBUTE": "a.b"}, "attribute is set, but source is not"),
        ({**JWT, "TENANCY__METADATA_PATH": "a"}, "metadata_path is set, but source is not"),
        ({**JWT, "TENANCY__HEADER_FROM_GATEWAY": "true"}, "header_from_gateway is set, but"),
        ({**HEADER, "TENANCY__HEADER": "X-Tenant"}, "TENANCY__HEADER (tenancy.header): is no name"),
        ({**HEADER, "TENANCY__HEADER": "x_tenant"}, "without '_'"),
        ({**HEADER, "TENANCY__HEADER": ":path"}, "is no name of a header"),
        ({**HEADER, "TENANCY__HEADER": "host"}, "is no name of a header for this"),
        ({**ATTRIBUTE, "TENANCY__ATTRIBUTE": "uri san"}, "is no name of an attribute"),
        ({**METADATA, "TENANCY__METADATA_PATH": "a,,b"}, "metadata_path.1"),
        ({**JWT, "JWT__ISSUER": ""}, "jwt: issuer is needed"),
        ({**JWT, "JWT__AUDIENCES": ""}, "jwt: audiences are needed"),
        ({**JWT, "JWT__JWKS_FILE": ""}, "jwt: one of jwks_file and jwks_uri is needed"),
        ({**JWT, "JWT__JWKS_URI": "https://i/keys"}, "jwt: one of jwks_file and jwks_uri"),
        ({**JWT, "JWT__JWKS_URI": "ftp://i/keys"}, "JWT__JWKS_URI (jwt.jwks_uri): must be"),
        ({**HEADER, "JWT__ISSUER": "i"}, "jwt: is set, but tenancy.source is not 'jwt'"),
        ({"JWT__JWKS_FILE": "keys.json"}, "jwt: is set, but tenancy.source is not 'jwt'"),
    ],
)
def test_a_combination_that_does_not_fit_is_refused(environ: dict[str, str], told: str) -> None:
    """X2: nobody believes tenants to be apart who are not; the message names what to change."""
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert told in "\n".join(caught.value.problems)


def test_a_gateways_header_must_be_one_that_is_not_stripped() -> None:
    """It would be missing from every request."""
    gateways = {**HEADER, "TENANCY__HEADER_FROM_GATEWAY": "true"}
    assert load(gateways).tenancy.header_from_gateway
    with pytest.raises(SettingsError, match="must not begin with x-holdfast-"):
        load({**gateways, "TENANCY__HEADER": "x-holdfast-tenant"})


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({**METADATA, **SOCKET}, "source 'metadata' cannot be used with http.listen"),
        ({**ATTRIBUTE, **SOCKET}, "source 'attribute' cannot be used with http.listen"),
        ({**JWT, **SOCKET}, "source 'jwt' cannot be used with http.listen"),
        ({**JWT, **PORT, **ALONE}, "there are its headers alone"),
        ({**HEADER, **PORT}, "on a port that others than Envoy can reach"),
        ({**HEADER, **PORT, **ALONE}, "without Envoy"),
        ({**HEADER, **SOCKET, **ALONE}, "without Envoy"),
    ],
)
def test_over_http_nothing_is_believed_that_a_client_could_say(
    environ: dict[str, str], told: str
) -> None:
    """X2: without ext_proc there are headers alone, and only what takes them from clients makes one true."""
    with pytest.raises(SettingsError, match=told):
        load(environ)
