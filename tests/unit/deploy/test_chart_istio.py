"""What the chart tells Istio of the model servers: a host that its registry knows, or a refusal."""

from __future__ import annotations

import pytest

from tests.support import chart
from tests.support.chart import helm, manifests, only


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://vllm", "vllm.prod.svc.cluster.local", 80),
        ("http://vllm:8000", "vllm.prod.svc.cluster.local", 8000),
        ("http://vllm.models:8000", "vllm.models.svc.cluster.local", 8000),
        ("http://vllm.7b:8000/v1", "vllm.7b.svc.cluster.local", 8000),
        ("http://vllm.models.svc:8000/v1/", "vllm.models.svc.cluster.local", 8000),
        ("http://vllm.models.svc.cluster.local", "vllm.models.svc.cluster.local", 80),
        ("http://models.vendor.com:8000/", "models.vendor.com", 8000),
    ],
)
def test_istio_knows_the_host_of_the_model_servers(url: str, host: str, port: int) -> None:
    """Promise 5: it completes names without a dot alone, and a host that it does not know is a 503."""
    made = manifests("istio", model={"url": url})
    passed = only("VirtualService", made)["spec"]["http"][-1]
    [route] = passed["route"]

    assert passed["name"] == f"{chart.IN_CLUSTER}-passthrough"
    assert route["destination"] == {"host": host, "port": {"number": port}}
    assert only("DestinationRule", made, "demo-holdfast-model")["spec"]["host"] == host
    assert chart.environment(made)["HOLDFAST_MODEL__URL"] == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.vendor.com/v1",
        "https://vllm.models",
        "http://vllm.models:8000/base/v1",
        "http://a.models:8000,http://b.models:8000",
        "http://10.0.0.1:8000",
        "http://[fd00::1]:8000",
        "http://user@vllm.models:8000",
        "http://vllm_1.models:8000",
        "unix:/run/model.sock",
    ],
)
def test_what_istio_cannot_be_told_of_the_model_servers_is_refused(url: str) -> None:
    """H1: before it is installed, and not by 503 or a worker that exits."""
    with pytest.raises(helm.HelmError, match=r"model\.url: Istio is told of "):
        manifests("istio", model={"url": url})
