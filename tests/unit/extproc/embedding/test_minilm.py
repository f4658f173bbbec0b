"""The local model: the same numbers as plain numpy, and a graph that is whole or made again."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from extproc.embedding.graph_cache import built_graph
from extproc.embedding.minilm import MiniLm, Tokens, runs
from tests.support.minilm import MODEL, PlainMiniLm

TEXTS = [
    "",
    "fox",
    "The quick brown fox jumps over the lazy dog.",
    "Unbelievably, ünïcode — 日本語のテキスト 🦊 is no problem\x00 at all.",
    "A response is held fast until Postgres has it. " * 12,
    "word " * 5000,
]


@pytest.fixture
def files(minilm_cache: Path) -> Path:
    return Path(importlib.import_module(MODEL).get_model_path())


def embedded(model: MiniLm, texts: list[str]) -> list[bytes]:
    vectors = [b""] * len(texts)
    for run in runs(model.tokens(texts)):
        for text, vector in zip(run, model.run(run), strict=True):
            vectors[text.place] = vector
    return vectors


def test_the_model_is_the_one_that_was_published(minilm: MiniLm, files: Path) -> None:
    """Short, empty, foreign and cut texts, filled up together: as each alone in plain numpy."""
    plain = PlainMiniLm(files)
    ours = [np.frombuffer(vector, dtype="<f4") for vector in embedded(minilm, TEXTS)]

    for text, vector in zip(TEXTS, ours, strict=True):
        assert np.abs(vector - plain.embed(text)).max() < 1e-5


def test_texts_are_run_with_others_of_their_length() -> None:
    """X5: at most 1024 tokens at once, with what is filled up, and each text once."""
    lengths = [3, 256, 7, 200, 256, 5, 100] * 20
    texts = [Tokens(place, [1] * length) for place, length in enumerate(lengths)]
    found = list(runs(texts))

    assert sorted(text.place for run in found for text in run) == list(range(len(texts)))
    for run in found:
        assert len(run) * max(len(text.ids) for text in run) <= 1024
    assert len(found) < 30


def test_several_threads_use_one_model(minilm: MiniLm) -> None:
    """A query is answered while passages are made."""
    texts = TEXTS[:4]
    alone = embedded(minilm, texts)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: embedded(minilm, texts), range(8)))

    assert all(vectors == alone for vectors in together)


def test_the_graph_is_made_once(minilm: MiniLm, minilm_cache: Path, files: Path) -> None:
    """What is whole is used again; its name ends with the digest of its content."""
    (graph,) = minilm_cache.glob("*.onnx")
    before = graph.stat().st_mtime_ns

    assert built_graph(files, minilm_cache, graph.name.partition("-r")[0]) == graph
    assert graph.stat().st_mtime_ns == before


def test_a_broken_graph_is_made_again(
    tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was cut, or is of another content than its name says."""
    first = built_graph(files, tmp_path, "m")
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    again = built_graph(files, tmp_path, "m")

    assert again.read_bytes() == content
    assert "broken" in caplog.text
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".lock", ".onnx"]


def test_workers_that_begin_at_once_wait_for_the_first(tmp_path: Path, files: Path) -> None:
    """One of several processes makes the graph, and all have it."""
    code = (
        "import logging, sys, pathlib\n"
        "logging.basicConfig(level='INFO')\n"
        "from extproc.embedding.graph_cache import built_graph\n"
        "print(built_graph(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 'm'))"
    )
    command = [sys.executable, "-c", code, str(files), str(tmp_path)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [worker.communicate(timeout=60) for worker in workers]

    assert len({out for out, _ in said}) == 1
    assert sum("making the graph" in log for _, log in said) == 1


def test_a_model_of_another_kind_is_refused(tmp_path: Path, files: Path) -> None:
    """What the graph cannot say is no graph; the reason is told, and nothing is left behind."""
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    pooling = (files / "1_Pooling" / "config.json").read_text()
    (model / "config.json").write_text((files / "config.json").read_text())
    (model / "1_Pooling" / "config.json").write_text(pooling.replace("false", "true", 1))

    with pytest.raises(RuntimeError, match="does not pool by the mean"):
        built_graph(model, tmp_path / "cache", "m")
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, files: Path) -> None:
    """Not a crash later on."""
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        built_graph(files, tmp_path / "file" / "cache", "m")


def test_nothing_of_it_is_imported_before_it_is_needed() -> None:
    """A worker without local embeddings needs none of their packages."""
    code = (
        "import sys, extproc.app, extproc.embedding.opening\n"
        "print([name for name in sys.modules if name in "
        "('onnx', 'onnxruntime', 'tokenizers', 'safetensors')])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )

    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
