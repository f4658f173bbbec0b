"""Who reaches what, as the chart's NetworkPolicies have it."""

from __future__ import annotations

import pytest

from tests.support import chart
from tests.support.chart import SHAPES, manifests, only


@pytest.mark.parametrize("model_port", [1, 8081, 65535])
def test_the_other_ports_of_an_envoy_stay_open(model_port: int) -> None:
    """Clients by TLS or QUIC, scrapes, the admin interface: a policy closes what it does not name."""
    given = {**SHAPES["envoy"]["envoy"], "modelPort": model_port}
    made = manifests("envoy", envoy=given)
    policy = only("NetworkPolicy", made, f"{chart.IN_CLUSTER}-model")
    for_all, for_workers = policy["spec"]["ingress"]
    open_to_all = {
        port
        for each in for_all["ports"]
        if each["protocol"] == "TCP"
        for port in range(each["port"], each["endPort"] + 1)
    }

    assert "from" not in for_all
    assert open_to_all == set(range(1, 65_536)) - {model_port}
    assert [each for each in for_all["ports"] if "port" not in each] == [
        {"protocol": "UDP"},
        {"protocol": "SCTP"},
    ]
    assert for_workers["ports"] == [{"port": model_port, "protocol": "TCP"}]


def test_an_envoy_whose_ports_other_policies_close_gets_none() -> None:
    """Policies add up: ours would open what yours closes."""
    made = manifests("envoy", envoy={**SHAPES["envoy"]["envoy"], "networkPolicy": False})

    assert [m["metadata"]["name"] for m in made if m["kind"] == "NetworkPolicy"] == [
        "demo-holdfast"
    ]
