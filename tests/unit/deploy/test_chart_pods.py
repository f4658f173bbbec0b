"""What the chart's pods are given, and how long they are waited for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support import chart
from tests.support.chart import SHAPES, helm, manifests, only, pod

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
