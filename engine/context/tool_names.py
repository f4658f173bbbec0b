"""The names under which the model sees the tools that the gateway runs (rule T5).

A tool keeps its own name where that is a function name and nobody else has it. Where two providers, or a
provider and a function of the client's, share a name, each owned tool of that name is shown with its label
before it, whatever the order of the declarations: the same tools have the same names turn after turn, and
the client's own functions keep theirs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

ToolKey = tuple[str, str]
"""The label of a provider and the tool's own name."""

_LONGEST = 64
_DIGEST = 8
_VALID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_INVALID = re.compile(r"[^a-zA-Z0-9_-]")


def shown_names(tools: Sequence[ToolKey], taken: Collection[str]) -> Mapping[ToolKey, str]:
    """Return a function name for each tool, unique also against `taken`, the client's names.

    Every name matches `[a-zA-Z0-9_-]{1,64}`. Pairs in `tools` are unique.
    """
    owners = Counter(name for _, name in tools)
    wanted = {key: _wanted(key, alone=owners[key[1]] == 1 and key[1] not in taken) for key in tools}
    # A changed name can meet one that was taken unchanged: what is still not unique gets a digest.
    claims = Counter(wanted.values())
    return {
        key: name if claims[name] == 1 and name not in taken else _digested(key, name)
        for key, name in wanted.items()
    }


def _wanted(key: ToolKey, *, alone: bool) -> str:
    label, name = key
    if alone and _VALID.fullmatch(name):
        return name
    full = name if alone else f"{label}__{name}"
    return full if _VALID.fullmatch(full) else _digested(key, full)


def _digested(key: ToolKey, name: str) -> str:
    digest = hashlib.sha256("\0".join(key).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    stem = _INVALID.sub("_", name)[: _LONGEST - _DIGEST - 1]
    return f"{stem}_{digest}"
