"""What the chart's objects are called: two installations of one name in one cluster do not meet."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.chart import NAMESPACE, Manifest, helm, manifests, only

# A label of DNS that begins with a letter: what the name of a Service may be.
_SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LONG: list[tuple[str, str]] = [
    ("s" * 63, "a" * 50),
    ("s" * 62 + "t", "a" * 50),
    ("s" * 63, "a" * 49 + "b"),
    ("b-c", "a"),
    ("c", "a-b"),
    ("1st", "a"),
]
"""Namespaces and names that are as long as they may be, or give the same when they are joined."""

elsewhere = pytest.mark.parametrize("shape", ["envoyGateway", "istio", "envoy"])


def objects(made: list[Manifest]) -> set[tuple[str, str, str]]:
    """Return the kind, namespace and name of each object."""
    return {(m["kind"], m["metadata"]["namespace"], m["metadata"]["name"]) for m in made}


@elsewhere
def test_the_same_name_in_two_namespaces_makes_no_object_twice(shape: str) -> None:
    """A team may call its release in `prod` as in `staging`, with one Envoy for both."""
    prod, staging = manifests(shape), manifests(shape, namespace="staging")
    outside = {each for each in objects(prod) if each[1] != NAMESPACE}

    assert outside
    assert not objects(prod) & objects(staging)


def test_an_envoy_in_our_own_namespace_has_short_names() -> None:
    """Nobody else's objects are there: names stay as they were."""
    made = manifests("envoy", envoy={"host": "envoy", "namespace": ""})

    assert only("ConfigMap", made, "demo-holdfast-envoy")
    assert only("NetworkPolicy", made, "demo-holdfast-model")


def test_installations_share_an_ingress_gateway_without_a_common_name() -> None:
    """E1, Istio: of two filters with one name the first would answer the other's routes."""
    names = [names_in_envoy(manifests("istio", namespace=each)) for each in ("prod", "staging")]

    assert all(names[0])
    assert not names[0] & names[1]


def names_in_envoy(made: list[Manifest]) -> set[str]:
    """Return the names of filters, of what switches them on, and of routes."""
    [patched] = [each for each in made if each["kind"] == "EnvoyFilter"]
    names = {http["name"] for http in only("VirtualService", made)["spec"]["http"]}
    for patch in patched["spec"]["configPatches"]:
        value = patch["patch"]["value"]
        names |= {value["name"]} if "name" in value else set(value["typed_per_filter_config"])
    return names


def test_the_model_service_of_each_installation_is_its_own() -> None:
    """X6: no two Gateways are behind one Service, however long their names are, and workers ask their own."""
    names = {_model_service(namespace, fullname) for namespace, fullname in _LONG}

    assert len(names) == len(_LONG)
    assert all(_SERVICE.fullmatch(name) for name in names)


@elsewhere
def test_services_are_found_in_a_cluster_of_another_domain(shape: str) -> None:
    """Workers, their Envoy and the model are called by whole names."""
    made = manifests(shape, clusterDomain="k8s.example.org")
    written = json.dumps(made)

    assert "cluster.local" not in written
    assert ".svc.k8s.example.org" in written


def test_a_domain_that_is_none_is_refused() -> None:
    """H1."""
    with pytest.raises(helm.HelmError, match="clusterDomain"):
        manifests("istio", clusterDomain=".cluster.local")


def _model_service(namespace: str, fullname: str) -> str:
    made = manifests("envoyGateway", namespace=namespace, fullnameOverride=fullname)
    proxy = only("EnvoyProxy", made, f"{fullname}-model")
    name: str = proxy["spec"]["provider"]["kubernetes"]["envoyService"]["name"]
    settings: dict[str, Any] = only("ConfigMap", made, f"{fullname}-settings")["data"]

    asked = urlsplit(settings["HOLDFAST_MODEL__URL"]).hostname
    assert asked == f"{name}.envoy-gateway-system.svc.cluster.local"
    return name
