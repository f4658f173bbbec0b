"""The image and the compose file, as far as they can be judged without an engine."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from extproc.settings import Settings
from tests.support.dockerfile import IMAGE, build_stage, instructions

ROOT = Path(__file__).parents[3]
COMPOSE = IMAGE.parent / "compose.yaml"
SCHEMA = Path(__file__).parents[2] / "support" / "compose.schema.json"
VALUES = ROOT / "deploy" / "helm" / "holdfast" / "values.yaml"
HADOLINT = Path(sys.executable).with_name("hadolint")


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


SERVICES = list(compose()["services"])


@pytest.mark.skipif(not HADOLINT.exists(), reason="there is no hadolint for this machine on PyPI")
def test_the_linter_has_nothing_to_complain_about() -> None:
    """hadolint, with ShellCheck for the RUN steps."""
    told = subprocess.run(
        [HADOLINT, "--no-color", IMAGE], capture_output=True, text=True, check=False, timeout=60
    )

    assert (told.returncode, told.stdout) == (0, "")


def test_the_image_runs_as_nobody_in_particular() -> None:
    """Non-root by number, and writable by any uid of group 0 where it has to write."""
    final = [each for each in instructions() if each.stage == 1]
    users = [each.value for each in final if each.name == "USER"]
    made = [each.value for each in final if each.name == "RUN"]

    assert users == ["65532:0"]
    assert made == ["install -d -m 0770 -o 65532 -g 0 /run/holdfast /var/lib/holdfast"]


def test_the_image_has_no_compiler_and_no_build_tools() -> None:
    """Both stages are slim, nothing is installed by apt, and only the environment is taken over."""
    found = instructions()
    base = next(each.value for each in found if each.name == "ARG")
    taken = [each.value for each in found if each.stage == 1 and each.name == "COPY"]

    assert "-slim-" in base
    assert [each.words[0] for each in found if each.name == "FROM"] == ["${PYTHON}", "${PYTHON}"]
    assert taken == ["--from=build /opt/holdfast /opt/holdfast"]
    assert not any("apt" in each.value for each in found if each.name == "RUN")


def test_everything_that_is_downloaded_has_a_hash() -> None:
    """Each `pip install` asks for hashes, or for no index."""
    steps = " && ".join(each.value for each in build_stage("RUN"))
    installs = re.findall(r"pip (?:--python \S+ )?install ([^&]*)", steps)

    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or "--no-index" in options


def test_what_is_copied_is_there_and_not_ignored() -> None:
    """The ignore file lets through what the image is made of, and nothing else."""
    ignore = IMAGE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = [source for each in build_stage("COPY") for source in each.words[:-1]]

    assert "*" in ignore
    for source in copied:
        assert (ROOT / source).exists()
        assert source in allowed or Path(source).match("deploy/docker/*.lock")
    assert {each for each in allowed if "*" not in each} <= set(copied)


@pytest.mark.parametrize(
    "service",
    [name for name in SERVICES if "holdfast" in str(compose()["services"][name].get("image"))],
)
def test_compose_gives_settings_that_workers_accept(service: str) -> None:
    """The same for each container, so that the config of Envoy and the workers agree."""
    given = compose()["services"][service]["environment"]
    environ = {
        name: value.replace("${BACKEND_URL:-", "").rstrip("}") for name, value in given.items()
    }
    settings = Settings.load(None, environ)

    assert settings.model.url == f"unix:{settings.demo_socket}"
    assert settings.postgres.url is not None
    assert settings.listen.port == 8080


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "postgres"])
def test_compose_restricts_what_we_run(service: str) -> None:
    """As the chart does."""
    told = compose()["services"][service]

    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["user"] == "65532:0"


def test_compose_keeps_uploaded_files_where_postgres_keeps_their_rows() -> None:
    """A file that was accepted is there after `down` and `up`: on a volume of its own, made by the image."""
    environ = next(each.value for each in instructions() if each.stage == 1 and each.name == "ENV")
    data_dir = dict(word.split("=", 1) for word in environ.split())["DATA_DIR"]
    made = next(each for each in instructions() if each.stage == 1 and each.name == "RUN")
    mounted = dict(each.split(":") for each in compose()["services"]["holdfast"]["volumes"])

    directory = Settings.load(None, {"DATA_DIR": data_dir}).files.directory
    assert directory.is_relative_to(mounted["data"])
    assert mounted["data"] in made.words


def test_compose_is_what_the_specification_knows() -> None:
    """Every key is one of the compose specification's, with a value of its type."""
    document = compose()
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    for service in document["services"].values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in document["volumes"]


def test_compose_and_the_chart_run_the_same_envoy() -> None:
    """One release, which is the one of the tests."""
    image = yaml.safe_load(VALUES.read_text())["gateway"]["image"]

    assert compose()["services"]["envoy"]["image"] == f"{image['repository']}:{image['tag']}"


def test_the_demo_model_is_in_the_image() -> None:
    """Its entry point is a module of ours."""
    _, flag, module, *_ = compose()["services"]["demo-model"]["entrypoint"]

    assert flag == "-m"
    assert importlib.util.find_spec(module)
