"""What the chart refuses because nothing could come of it: H1, nothing that is set is ignored."""

from __future__ import annotations

import re
from typing import Any

import pytest

from extproc.envoy.own_settings import CONFIG, PROCESS
from extproc.settings import Settings
from tests.support import chart
from tests.support.chart import SHAPES, helm, manifests

elsewhere = pytest.mark.parametrize("shape", ["envoyGateway", "istio", "envoy"])


def given(name: str, value: Any) -> dict[str, Any]:
    """Return a setting by its section."""
    section, field = name.split(".")
    return {section: {field: value}}


@elsewhere
@pytest.mark.parametrize("name", [*CONFIG, "model.ca_file"])
def test_what_only_envoy_reads_is_refused_where_its_config_is_not_made(
    shape: str, name: str
) -> None:
    """An operator who has set a budget or a picker must not believe that it works."""
    with pytest.raises(helm.HelmError, match=re.escape(f"settings.{name}: ")):
        manifests(shape, settings=given(name, "given"))


@elsewhere
def test_it_is_refused_from_a_secret_as_well(shape: str) -> None:
    """Every setting may come from one."""
    secrets = {
        "postgres": {"url": {"name": "postgres"}},
        "envoy": {"rate_limit_url": {"name": "budgets"}},
    }
    with pytest.raises(helm.HelmError, match=r"secrets\.envoy\.rate_limit_url: "):
        manifests(shape, secrets=secrets)


@pytest.mark.parametrize("name", CONFIG)
def test_the_pod_with_its_own_envoy_takes_all_of_them(name: str) -> None:
    """There the config is made from the very settings; what is null is not given."""
    assert manifests("gateway", settings=given(name, "given"))
    assert manifests("istio", settings=given(name, None))


def test_an_envoy_with_a_config_of_its_own_takes_them() -> None:
    """Without the ConfigMap, `holdfast config --envoy` makes it from the workers' settings."""
    envoy = {**SHAPES["envoy"]["envoy"], "createConfig": False}

    assert manifests("envoy", envoy=envoy, settings=given("routing.retries", 3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PROCESS)
def test_what_only_holdfast_up_reads_is_refused(shape: str, name: str) -> None:
    """No pod starts Envoy that way: `gateway.concurrency` is the value for it."""
    with pytest.raises(helm.HelmError, match=re.escape(f"settings.{name}: only `holdfast up`")):
        manifests(shape, settings=given(name, "4"))


_HEADER = {"mode": "required", "source": "header", "header": "x-tenant"}
meshes_alone = pytest.mark.parametrize("shape", ["envoyGateway", "istio"])


@meshes_alone
@pytest.mark.parametrize("given", [{}, {"header_from_gateway": False}])
def test_a_header_that_nobody_takes_from_clients_names_no_tenant(
    shape: str, given: dict[str, bool]
) -> None:
    """X2: a mesh's Envoy gets nothing from the chart that removes it, so any client could be any tenant."""
    with pytest.raises(helm.HelmError, match=r"settings\.tenancy\.source.*header_from_gateway"):
        manifests(shape, settings={"tenancy": {**_HEADER, **given}})


@elsewhere
def test_whose_a_request_is_comes_from_no_secret(shape: str) -> None:
    """X2: the chart could not see a source that it has to refuse."""
    secrets = {
        "postgres": {"url": {"name": "postgres"}},
        "tenancy": {"source": {"name": "hidden"}},
    }
    with pytest.raises(helm.HelmError, match=r"secrets\.tenancy\.source: "):
        manifests(shape, secrets=secrets)


@meshes_alone
def test_a_header_that_somebody_vouches_for_is_taken(shape: str) -> None:
    """X2: as where workers serve HTTP, the operator says that clients cannot send it."""
    made = manifests(shape, settings={"tenancy": {**_HEADER, "header_from_gateway": True}})
    environ = {**chart.environment(made), "HOLDFAST_POSTGRES__URL": "postgresql://h/d"}

    assert Settings.load(None, environ).tenancy.header == "x-tenant"
