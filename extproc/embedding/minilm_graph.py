"""Makes the ONNX graph of a BERT that embeds sentences from its weights: `python -m … MODEL_DIRECTORY FILE`.

    ids, mask [texts, tokens] int32 -> vectors [texts, hidden] float32, of unit length

Embeddings, attention and what follows are onnxruntime's own fused operators (domain com.microsoft); the
pooling, a mean over the tokens that the mask leaves, and the normalisation are part of the graph. Pooling and
the shape of the model are those of its config files; another kind is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = NDArray[np.float32]

REVISION = 1
"""Counts up with every change of what this file makes."""

_FUSED = "com.microsoft"
_FUSED_VERSION, _OPSET = 1, 17
# The oldest ONNX that has the opset: what onnxruntime 1.22 reads.
_IR_VERSION = 8


class _Graph:
    """Nodes and weights as they are put together, over the tensors of a file."""

    def __init__(self, tensors: Any, config: dict[str, Any]) -> None:
        self._tensors = tensors
        self.config = config
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def tensor(self, name: str) -> Weights:
        """Return a tensor of the file."""
        found: Weights = self._tensors.get_tensor(name)
        return found

    def weight(self, name: str, values: Any) -> str:
        """Add a constant, and return its name."""
        import numpy as np
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def own(self, name: str, *, transposed: bool = False) -> str:
        """Add a tensor of the file as a constant; a dense layer's weights are kept as [out, in] there."""
        values = self.tensor(name)
        return self.weight(name, values.T if transposed else values)

    def node(
        self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **how: Any
    ) -> str:
        """Add a node, and return the name of its output."""
        from onnx import helper

        node = helper.make_node(operator, inputs, [output], name=output, domain=domain, **how)
        self.nodes.append(node)
        return output

    def fused(self, operator: str, inputs: Sequence[str], output: str, **how: Any) -> str:
        """Add a node of onnxruntime's own."""
        return self.node(operator, inputs, output, _FUSED, **how)

    @property
    def epsilon(self) -> float:
        """What LayerNorm adds to a variance."""
        return float(self.config["layer_norm_eps"])


def build(directory: Path, target: Path) -> None:
    """Write the graph of the model in a directory; raises ValueError for a model of another kind."""
    import onnx
    from onnx import TensorProto, helper
    from safetensors import safe_open

    config = json.loads((directory / "config.json").read_bytes())
    _refuse_others(config, json.loads((directory / "1_Pooling" / "config.json").read_bytes()))
    with safe_open(directory / "model.safetensors", "np") as tensors:
        graph = _Graph(tensors, config)
        hidden = _embedded(graph)
        for layer in range(config["num_hidden_layers"]):
            hidden = _layer(graph, f"encoder.layer.{layer}", hidden)
        _pooled(graph, hidden)
    whole = helper.make_graph(
        graph.nodes,
        "sentence-bert",
        [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["texts", "tokens"])
            for name in ("ids", "mask")
        ],
        [
            helper.make_tensor_value_info(
                "vectors", TensorProto.FLOAT, ["texts", config["hidden_size"]]
            )
        ],
        graph.weights,
    )
    versions = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, _FUSED_VERSION)]
    onnx.save(helper.make_model(whole, opset_imports=versions, ir_version=_IR_VERSION), str(target))


def _refuse_others(config: dict[str, Any], pooling: dict[str, Any]) -> None:
    wanted = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
    }
    if {name: config.get(name) for name in wanted} != wanted:
        raise ValueError("the model is no BERT with GELU and absolute positions")
    if [name for name, on in pooling.items() if on is True] != ["pooling_mode_mean_tokens"]:
        raise ValueError("the model does not pool by the mean of its tokens")


def _embedded(graph: _Graph) -> str:
    from onnx import helper

    inputs = [
        "ids",
        graph.node("Sub", ["ids", "ids"], "segments"),  # zeros: all of the first one
        graph.own("embeddings.word_embeddings.weight"),
        graph.own("embeddings.position_embeddings.weight"),
        graph.own("embeddings.token_type_embeddings.weight"),
        graph.own("embeddings.LayerNorm.weight"),
        graph.own("embeddings.LayerNorm.bias"),
    ]
    # Its second output, the lengths by the mask, must be there, and is not needed.
    node = helper.make_node(
        "EmbedLayerNormalization",
        inputs,
        ["embedded", "lengths"],
        name="embedded",
        domain=_FUSED,
        epsilon=graph.epsilon,
    )
    graph.nodes.append(node)
    return "embedded"


def _layer(graph: _Graph, name: str, hidden: str) -> str:
    """Add one layer, and return the name of what it puts out."""
    attended = graph.fused(
        "Attention",
        [hidden, *_query_key_value(graph, f"{name}.attention.self"), "mask"],
        f"{name}.attended",
        num_heads=graph.config["num_attention_heads"],
    )
    middle = _added(graph, f"{name}.attention.output", attended, hidden)
    dense = f"{name}.intermediate.dense"
    wide = graph.node("MatMul", [middle, graph.own(f"{dense}.weight", transposed=True)], dense)
    active = graph.fused("BiasGelu", [wide, graph.own(f"{dense}.bias")], f"{name}.active")
    return _added(graph, f"{name}.output", active, middle)


def _query_key_value(graph: _Graph, name: str) -> list[str]:
    """Add the three projections as one, as the fused operator wants them: weights [in, 3 x out], bias."""
    import numpy as np

    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    weights = np.concatenate([graph.tensor(f"{part}.weight").T for part in parts], axis=1)
    bias = np.concatenate([graph.tensor(f"{part}.bias") for part in parts])
    return [graph.weight(f"{name}.weight", weights), graph.weight(f"{name}.bias", bias)]


def _added(graph: _Graph, name: str, inner: str, skipped: str) -> str:
    """Add a dense layer, what skips it, and LayerNorm."""
    weights = graph.own(f"{name}.dense.weight", transposed=True)
    dense = graph.node("MatMul", [inner, weights], f"{name}.dense")
    norm = [graph.own(f"{name}.LayerNorm.{part}") for part in ("weight", "bias")]
    return graph.fused(
        "SkipLayerNormalization",
        [dense, skipped, *norm, graph.own(f"{name}.dense.bias")],
        f"{name}.normalised",
        epsilon=graph.epsilon,
    )


def _pooled(graph: _Graph, hidden: str) -> None:
    """Add the mean over what the mask leaves, at unit length: the length of a sum is that of its mean."""
    import numpy as np
    from onnx import TensorProto

    kept = graph.node("Cast", ["mask"], "kept", to=TensorProto.FLOAT)
    last = graph.weight("last", np.array([2], dtype=np.int64))
    column = graph.node("Unsqueeze", [kept, last], "column")
    masked = graph.node("Mul", [hidden, column], "masked")
    tokens = graph.weight("tokens", np.array([1], dtype=np.int64))
    total = graph.node("ReduceSum", [masked, tokens], "total", keepdims=0)
    graph.node("LpNormalization", [total], "vectors", axis=1, p=2)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
