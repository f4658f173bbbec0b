"""The chart, rendered as `helm install` would, in each of its shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.support.chart_files import CHART

helm = pytest.importorskip("helm_python", reason="there is no Helm for this machine on PyPI")

Manifest = dict[str, Any]

NAME, NAMESPACE = "demo", "prod"
HOST = "demo-holdfast.prod.svc.cluster.local"
IN_CLUSTER = "prod.demo-holdfast"
"""What the installation is called where it is beside those of other namespaces."""

_EVERY = {
    "image": {"repository": "registry.test/holdfast"},
    "secrets": {
        "postgres": {"url": {"name": "postgres"}},
        "sealing": {"keys": {"name": "sealing"}},
    },
    "files": {"volume": {"persistentVolumeClaim": {"claimName": "files"}}},
}
_SERVERS = {"model": {"url": "http://vllm.models:8000"}}
SHAPES: dict[str, dict[str, Any]] = {
    "gateway": _SERVERS,
    "envoyGateway": {
        "envoyGateway": {
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["api.test"],
            "modelBackendRefs": [{"name": "vllm", "port": 8000}],
        }
    },
    "istio": {**_SERVERS, "istio": {"gateways": ["istio-system/public"]}},
    "envoy": {**_SERVERS, "envoy": {"host": "envoy.edge.svc", "namespace": "edge"}},
}
"""The values that each shape needs at least."""


def values(shape: str, **changed: Any) -> dict[str, Any]:
    """Return the values of a shape, with whole top-level values changed."""
    return {**_EVERY, "shape": shape, **SHAPES[shape], **changed}


def texts(shape: str, *, namespace: str = NAMESPACE, **changed: Any) -> dict[str, str]:
    """Return each template's file name and what it renders to; raises Helm's errors."""
    return render(values(shape, **changed), namespace)


def render(given: Mapping[str, Any], namespace: str = NAMESPACE) -> dict[str, str]:
    """Return each template's file name and what these values render to; raises Helm's errors."""
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(dict(given), name=NAME, namespace=namespace)
    return {path.rsplit("/", 1)[-1]: text for path, text in rendered.items()}


def manifests(shape: str, *, namespace: str = NAMESPACE, **changed: Any) -> list[Manifest]:
    """Return all manifests of a shape."""
    found = texts(shape, namespace=namespace, **changed)
    return [
        manifest
        for name, text in found.items()
        if name.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


def only(kind: str, among: list[Manifest], name: str = "demo-holdfast") -> Manifest:
    """Return the manifest of a kind and name."""
    [found] = [m for m in among if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def pod(among: list[Manifest]) -> Manifest:
    """Return the spec of the workers' pods."""
    spec: Manifest = only("Deployment", among)["spec"]["template"]["spec"]
    return spec


def container(spec: Manifest, name: str) -> Manifest:
    """Return a container of a pod, an init container too."""
    [found] = [
        each
        for each in [*spec.get("initContainers", []), *spec["containers"]]
        if each["name"] == name
    ]
    return dict(found)


def environment(among: list[Manifest]) -> dict[str, str]:
    """Return the workers' settings, as the ConfigMap has them."""
    data: dict[str, str] = only("ConfigMap", among, "demo-holdfast-settings")["data"]
    return data


def variables(among: list[Manifest], each: Manifest, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a container; `secrets` is what the Secrets hold, by variable."""
    maps = {m["metadata"]["name"]: m["data"] for m in among if m["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in each.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for one in each.get("env", []):
        found[one["name"]] = one["value"] if "value" in one else secrets[one["name"]]
    return found
