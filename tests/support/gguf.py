"""A tiny model that llama.cpp can serve, written by the test: it says what it is told to say.

Its one layer adds nothing, so that the last token alone decides the next: `chains` are lines of tokens
where each is followed by the one behind it. After any other token comes a random byte, and so on without
an end: babble, and hardly ever UTF-8.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

_CONTROL, _TEXT, _BYTE = 3, 4, 6
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_ALIGNMENT = 32
_CONTEXT = 8192
# Times the norm of a single one among the zeros of an embedding: no sampler picks anything else.
_SURE = 4.0
_LIKELY = 0.1

END = "<|im_end|>"
_STARTS = ("<unk>", "<s>", END, "<|im_start|>")


def write_model(path: Path, template: str, chains: Iterable[Sequence[str]]) -> None:
    """Write a model with that chat template.

    The first token of a chain is a cue: one that only the template writes, and nobody reads. Where a token
    stands in two chains, what follows in the first of them is more likely, and in the second is said if a
    grammar forbids that.
    """
    lines = [list(chain) for chain in chains]
    text = list(dict.fromkeys(token for line in lines for token in line[1:] if token != END))
    cues = dict.fromkeys(line[0] for line in lines if line[0] not in text)
    control = [*_STARTS, *cues]
    byte = [f"<0x{value:02X}>" for value in range(256)]
    tokens = [*control, *text, *byte]
    kinds = [_CONTROL] * len(control) + [_TEXT] * len(text) + [_BYTE] * len(byte)
    width = -(-len(tokens) // 64) * 64
    path.write_bytes(
        _file(_facts(width, template, tokens, kinds), _tensors(width, tokens, _pairs(lines)))
    )


def _pairs(lines: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    return [pair for line in lines for pair in pairwise(line)]


def _facts(width: int, template: str, tokens: list[str], kinds: list[int]) -> dict[str, bytes]:
    """Return what stands in the head of the file."""
    numbers = {
        "llama.block_count": 1,
        "llama.context_length": _CONTEXT,
        "llama.embedding_length": width,
        "llama.feed_forward_length": 32,
        "llama.attention.head_count": width // 64,
        "llama.attention.head_count_kv": 1,
        "llama.rope.dimension_count": 64,
        "tokenizer.ggml.unknown_token_id": tokens.index("<unk>"),
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index(END),
    }
    return {
        "general.architecture": _typed(_STRING, _string("llama")),
        **{name: _typed(_UINT32, struct.pack("<I", value)) for name, value in numbers.items()},
        "llama.attention.layer_norm_rms_epsilon": _typed(_FLOAT32, struct.pack("<f", 1e-5)),
        "tokenizer.ggml.model": _typed(_STRING, _string("llama")),
        "tokenizer.ggml.tokens": _list(_STRING, [_string(token) for token in tokens]),
        "tokenizer.ggml.scores": _list(_FLOAT32, [struct.pack("<f", 0.0)] * len(tokens)),
        "tokenizer.ggml.token_type": _list(_INT32, [struct.pack("<i", kind) for kind in kinds]),
        "tokenizer.ggml.add_bos_token": _typed(_BOOL, b"\0"),
        "tokenizer.ggml.add_space_prefix": _typed(_BOOL, b"\0"),
        "tokenizer.chat_template": _typed(_STRING, _string(template)),
    }


def _tensors(
    width: int, tokens: list[str], pairs: list[tuple[str, str]]
) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Return the weights by name, each with its shape, the fastest dimension first."""
    place = {token: index for index, token in enumerate(tokens)}
    embedding = _matrix(width, len(tokens), {(i, i): 1.0 for i in range(len(tokens))})
    likely = _babble(tokens)
    for before, after in pairs:
        said = sum(first == before for first, _ in pairs[: pairs.index((before, after))])
        likely[place[after], place[before]] = _SURE / (1 + said)
    output = _matrix(width, len(tokens), likely)
    ones = array("f", [1.0]) * width
    shapes = {
        "attn_q": (width, width),
        "attn_k": (width, 64),
        "attn_v": (width, 64),
        "attn_output": (width, width),
        "ffn_gate": (width, 32),
        "ffn_up": (width, 32),
        "ffn_down": (32, width),
    }
    return {
        "token_embd.weight": ((width, len(tokens)), embedding),
        "output_norm.weight": ((width,), ones.tobytes()),
        "output.weight": ((width, len(tokens)), output),
        "blk.0.attn_norm.weight": ((width,), ones.tobytes()),
        "blk.0.ffn_norm.weight": ((width,), ones.tobytes()),
        **{f"blk.0.{name}.weight": (shape, _matrix(*shape, {})) for name, shape in shapes.items()},
    }


def _babble(tokens: Sequence[str]) -> dict[tuple[int, int], float]:
    """Return for each pair of token and byte how likely the one is to follow the other."""
    dice = random.Random(1)
    first = len(tokens) - 256
    return {
        (row, column): dice.uniform(0.0, _LIKELY)
        for row in range(first, len(tokens))
        for column in range(len(tokens))
    }


def _matrix(width: int, rows: int, values: Mapping[tuple[int, int], float]) -> bytes:
    """Return rows of float32: zeros but for what stands at (row, column)."""
    cells = array("f", bytes(4 * width * rows))
    for (row, column), value in values.items():
        cells[row * width + column] = value
    return cells.tobytes()


def _file(
    facts: Mapping[str, bytes], tensors: Mapping[str, tuple[tuple[int, ...], bytes]]
) -> bytes:
    """Return a GGUF file of version 3."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)))
    for name, fact in facts.items():
        head += _string(name) + fact
    data = bytearray()
    for name, (shape, weights) in tensors.items():
        head += _string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, len(data))
        data += _aligned(weights)
    return _aligned(head) + data


def _aligned(data: bytes | bytearray) -> bytes:
    return bytes(data) + bytes(-len(data) % _ALIGNMENT)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(kind: int, data: bytes) -> bytes:
    return struct.pack("<I", kind) + data


def _list(kind: int, values: Sequence[bytes]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, kind, len(values)) + b"".join(values)
