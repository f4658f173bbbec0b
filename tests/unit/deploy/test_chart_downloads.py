"""Downloads in the chart: a port of their own where Envoy is not in the workers' pod."""

from __future__ import annotations

import pytest
import yaml

from extproc.settings import Settings
from tests.support import chart
from tests.support.chart import helm, manifests, only, pod

ELSEWHERE = ["envoyGateway", "istio", "envoy"]


@pytest.mark.parametrize("shape", ELSEWHERE)
def test_downloads_have_a_port_of_the_workers(shape: str) -> None:
    """ADR 27: the settings, the container, the Service and what Envoy is told name one port."""
    made = manifests(shape, processor={"port": 7000, "contentPort": 7100})
    settings = Settings.load(None, chart.environment(made))
    [port] = [
        each
        for each in chart.container(pod(made), "holdfast")["ports"]
        if each["name"] == "http-content"
    ]
    [served] = [each for each in only("Service", made)["spec"]["ports"] if each["port"] == 7100]

    assert [str(each) for each in settings.content_addresses(0)][1:] == ["0.0.0.0:7100"]
    assert port["containerPort"] == 7100
    assert (served["targetPort"], served["appProtocol"]) == ("http-content", "http")
    assert 7100 in [
        each["port"] for each in only("NetworkPolicy", made)["spec"]["ingress"][0]["ports"]
    ]
    assert _where_downloads_go(shape, made) == [("/v1/files/[^/]+/content", "GET", 7100)]


def _where_downloads_go(shape: str, made: list[chart.Manifest]) -> list[tuple[str, str, int]]:
    """Return path, method and port of each route that leads to another port than that of ext_proc."""
    if shape == "istio":
        [http] = [
            route
            for route in only("VirtualService", made)["spec"]["http"]
            if route["name"] == f"{chart.IN_CLUSTER}-content"
        ]
        [match], [to] = http["match"], http["route"]
        found = (match["uri"]["regex"], match["method"]["exact"])
        return [(*found, to["destination"]["port"]["number"])]
    if shape == "envoyGateway":
        [rule] = only("HTTPRoute", made, "demo-holdfast-without-body")["spec"]["rules"][1:]
        [match], [to] = rule["matches"], rule["backendRefs"]
        assert match["path"]["type"] == "RegularExpression"
        bounds = only("BackendTrafficPolicy", made, "demo-holdfast-content")["spec"]
        assert bounds["targetRefs"][0]["name"] == "demo-holdfast-without-body"
        return [(match["path"]["value"], match["method"], to["port"])]
    config = yaml.safe_load(
        only("ConfigMap", made, f"{chart.IN_CLUSTER}-envoy")["data"]["envoy.yaml"]
    )
    resources = config["static_resources"]
    [cluster] = [each for each in resources["clusters"] if each["name"] == "content"]
    assert cluster["type"] == "STRICT_DNS"
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address["address"] == chart.HOST
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return [
        (
            route["match"]["safe_regex"]["regex"],
            route["match"]["headers"][0]["string_match"]["exact"],
            address["port_value"],
        )
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
        if route.get("route", {}).get("cluster") == "content"
    ]


@pytest.mark.parametrize("shape", ELSEWHERE)
def test_a_port_of_downloads_needs_a_key_for_their_tickets(shape: str) -> None:
    """X2: told before anything is installed; a file with keys will do as well, and a socket needs none."""
    secrets = {"postgres": {"url": {"name": "postgres"}}}
    files = {"sealing": {"key_files": ["/etc/holdfast/keys"]}}

    with pytest.raises(helm.HelmError, match=r"secrets\.sealing\.keys\.name"):
        manifests(shape, secrets=secrets)
    assert manifests(shape, secrets=secrets, settings=files)
    made = manifests("gateway", secrets=secrets)
    assert "HOLDFAST_SIDECAR__CONTENT_LISTEN" not in chart.environment(made)
