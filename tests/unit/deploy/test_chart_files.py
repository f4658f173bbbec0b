"""Where the chart keeps the files that clients upload: in a place that every pod finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from extproc.settings import Settings
from tests.support import chart
from tests.support.chart import SHAPES, helm, manifests, pod

CLAIM = {"persistentVolumeClaim": {"claimName": "files"}}
STORE = {"settings": {"files": {"url": "s3://bucket/files"}}}

every_shape = pytest.mark.parametrize("shape", SHAPES)


def _mounts(spec: dict[str, Any], container: str) -> dict[str, str]:
    mounted = chart.container(spec, container)["volumeMounts"]
    return {each["name"]: each["mountPath"] for each in mounted}


@every_shape
@pytest.mark.parametrize(
    ("files", "volume"),
    [
        ({"volume": CLAIM}, CLAIM),
        ({"ephemeral": True}, {"emptyDir": {"sizeLimit": "20Gi"}}),
    ],
    ids=["claim", "ephemeral"],
)
def test_files_have_a_volume_of_their_own(
    shape: str, files: dict[str, Any], volume: dict[str, Any]
) -> None:
    """X5: what clients upload fills neither /tmp nor the pod's limit for it; Envoy sees nothing of it."""
    made = manifests(shape, files=files)
    spec = pod(made)
    settings = Settings.load(None, chart.environment(made))
    place = Path(_mounts(spec, "holdfast")["files"])

    assert {"name": "files", **volume} in spec["volumes"]
    assert settings.files.directory.parent == place
    assert not place.is_relative_to("/tmp")
    if shape == "gateway":
        assert "files" not in _mounts(spec, "envoy")


@every_shape
def test_an_object_store_needs_no_volume(shape: str) -> None:
    """Its address is a setting; it may come from a Secret too."""
    secrets = {
        "postgres": {"url": {"name": "db"}},
        "sealing": {"keys": {"name": "sealing"}},
        "files": {"url": {"name": "bucket"}},
    }
    for given in (STORE, {"secrets": secrets}):
        made = manifests(shape, files={}, **given)
        assert "files" not in {each["name"] for each in pod(made)["volumes"]}
        assert "HOLDFAST_FILES__DIRECTORY" not in chart.environment(made)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"files": {}}, "settings.files.url (an object store) or files.volume"),
        ({"files": {"volume": CLAIM, "ephemeral": True}}, "files.volume, files.ephemeral: which"),
        ({"files": {"volume": CLAIM}, **STORE}, "settings.files.url, files.volume: which"),
        ({"files": {"volume": {"emptyDir": {}}}}, "files.ephemeral says so"),
        ({"settings": {"files": {"directory": "/data"}}}, "settings.files.directory"),
    ],
    ids=["nowhere", "two volumes", "a store and a volume", "an emptyDir", "a directory"],
)
def test_a_place_that_not_every_pod_finds_is_refused(given: dict[str, Any], told: str) -> None:
    """A file that was accepted by one pod is there for all of them, and after the next rollout."""
    with pytest.raises(helm.HelmError, match=re.escape(told)):
        manifests("gateway", **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"files": {"ephemeral": True}}, "Files that clients upload are in each pod alone"),
        ({"files": {"volume": CLAIM}}, "on the volume of files.volume"),
        ({"files": {}, **STORE}, "in the object store of settings.files.url"),
    ],
    ids=["ephemeral", "claim", "store"],
)
def test_the_notes_tell_where_files_are(given: dict[str, Any], told: str) -> None:
    """Whoever installs sees what is lost with a pod."""
    assert told in chart.texts("gateway", **given)["NOTES.txt"]


@pytest.mark.parametrize(("workers", "concurrency"), [(1, 2), (3, 2), (1, 8)])
def test_tmp_holds_the_documents_that_are_read_at_a_time(workers: int, concurrency: int) -> None:
    """X5: a pod whose temporary files outgrow their limit is evicted, with all its streams."""
    given = {"sidecar": {"workers": workers}, "extraction": {"concurrency": concurrency}}
    made = manifests("gateway", settings=given, resources={"limits": {"memory": None}})
    settings = Settings.load(None, chart.environment(made))
    [tmp] = [each for each in pod(made)["volumes"] if each["name"] == "tmp"]
    reading = settings.extraction
    needed = workers * (
        reading.concurrency * reading.document_bytes
        + reading.request_concurrency * settings.files.input_bytes
    )

    limit = tmp["emptyDir"]["sizeLimit"]
    assert int(limit.removesuffix("Mi")) << 20 >= needed
