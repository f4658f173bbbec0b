"""What the chart's pods are given, and how long they are waited for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from extproc.envoy.config import render
from extproc.settings import Settings
from tests.support import chart
from tests.support.chart import SHAPES, helm, manifests, only, pod
from tests.support.chart_files import secret_settings

every_shape = pytest.mark.parametrize("shape", SHAPES)

EXTRA: dict[str, Any] = {
    "extraEnv": [
        {"name": "AWS_REGION", "value": "eu-central-1"},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "a=b"},
    ],
    "extraEnvFrom": [{"secretRef": {"name": "bucket"}}],
}


@every_shape
def test_variables_of_libraries_reach_workers_and_migration(shape: str) -> None:
    """An object store's credentials, OpenTelemetry's, libpq's: beside the settings, which win over them."""
    made = manifests(shape, **EXTRA)
    workers = chart.container(pod(made), "holdfast")
    [migration] = only("Job", made, "demo-holdfast-migrate")["spec"]["template"]["spec"][
        "containers"
    ]

    for each in (workers, migration):
        assert each["env"][-2:] == EXTRA["extraEnv"]
        assert each["envFrom"][0] == {"secretRef": {"name": "bucket"}}
    # Kubernetes takes the last of several sources that have a variable.
    assert workers["envFrom"][-1] == {"configMapRef": {"name": "demo-holdfast-settings"}}


def test_a_setting_among_the_other_variables_is_refused() -> None:
    """There is one way to set a thing, and that one is checked."""
    given = [{"name": "HOLDFAST_FILES__URL", "value": "s3://bucket"}]
    with pytest.raises(helm.HelmError, match=re.escape("HOLDFAST_FILES__URL is a setting")):
        manifests("gateway", extraEnv=given)


SECRETS: list[str] = yaml.safe_load(secret_settings())


def test_the_secrets_are_all_that_are_known() -> None:
    """What `holdfast config` masks is what the chart keeps out of a ConfigMap."""
    assert SECRETS == [
        "model.api_key",
        "postgres.url",
        "sealing.keys",
        "connectors.shared.headers",
        "connectors.shared.authorization",
        "embeddings.api_key",
        "index.url",
        "index.token",
        "traces.headers",
    ]


@pytest.mark.parametrize("place", SECRETS)
def test_a_secret_among_the_settings_is_refused(place: str) -> None:
    """X4: settings are in a ConfigMap, in clear text."""
    section, setting, *key = place.split(".")
    server = {"label": "wiki", "url": "https://wiki.test/mcp"}
    servers = [server, {**server, key[0]: "SECRET"}] if key else []
    wanted = re.escape(f"secrets.{section}.{setting} names the Secret")
    for given in (servers, json.dumps(servers)) if servers else ("SECRET",):
        with pytest.raises(helm.HelmError, match=wanted) as told:
            manifests("gateway", settings={section: {setting: given}})

        assert "SECRET" not in str(told.value)


def test_a_connector_without_credentials_is_a_setting() -> None:
    """Only what is secret of it has to be in a Secret."""
    server = {"label": "wiki", "url": "https://wiki.test/mcp"}
    made = manifests("gateway", settings={"connectors": {"shared": [server]}})
    [connector] = Settings.load(None, chart.environment(made)).connectors.shared

    assert connector.url == server["url"]


@every_shape
def test_a_worker_that_is_busy_for_a_moment_stays_in_the_service(shape: str) -> None:
    """E5: one late answer is no reason to give a pod's load to the others; one that is blocked has to go."""
    made = manifests(shape)
    probe = chart.container(pod(made), "holdfast")["readinessProbe"]
    blocked = Settings.load(None, chart.environment(made)).sidecar.blocked_seconds

    assert probe["failureThreshold"] > 1
    assert probe["timeoutSeconds"] >= 5
    assert probe["failureThreshold"] * probe["timeoutSeconds"] <= blocked


@every_shape
def test_pods_of_a_cluster_with_ipv6_alone_listen_there(shape: str) -> None:
    """The kubelet's probes, Envoy and Prometheus come to the pod's address, and it has no other."""
    made = manifests(shape, listenAddress="::")
    settings = Settings.load(None, chart.environment(made))

    assert "0.0.0.0" not in json.dumps(made)
    assert settings.metrics.listen == "[::]:9464"
    if shape == "gateway":
        assert _listening(render(settings)) == ["::"]
    else:
        assert settings.worker_addresses(0)[1] == "[::]:9000"
        assert str(settings.content_addresses(0)[1]) == "[::]:9001"
    if shape == "envoy":
        [config] = [m["data"]["envoy.yaml"] for m in made if "envoy.yaml" in m.get("data", {})]
        assert _listening(config) == ["::", "::"]


def _listening(config: str) -> list[str]:
    """Return the addresses of Envoy's listeners that have a port."""
    listeners = yaml.safe_load(config)["static_resources"]["listeners"]
    places = [each["address"].get("socket_address") for each in listeners]
    return [place["address"] for place in places if place]


def test_a_mesh_does_not_keep_the_migration_from_ending() -> None:
    """A proxy beside it would run on: the Job never completes, and `helm install` fails after its time."""

    def labels(**migration: Any) -> dict[str, str]:
        job = only("Job", manifests("gateway", migration=migration), "demo-holdfast-migrate")
        told: dict[str, str] = job["spec"]["template"]["metadata"]["labels"]
        return told

    assert labels()["sidecar.istio.io/inject"] == "false"
    through = labels(podLabels={"sidecar.istio.io/inject": "true"})
    assert through["sidecar.istio.io/inject"] == "true"
    assert "sidecar.istio.io/inject" not in labels(podLabels={"sidecar.istio.io/inject": None})
