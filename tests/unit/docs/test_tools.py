"""docs/tools.md: its tables of cases are what the code does, its example is the file that the tests run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.api.file_search import FileSearchTool
from engine.api.mcp import McpTool
from engine.api.ownership import ProvidedTool, ToolPolicy, UpstreamTool
from engine.api.tools import FunctionTool, parse_tools
from engine.errors import InvalidRequest
from engine.ports import ToolOutcome
from extproc.settings_tools import Tools
from tests.support import replies
from tests.support.engine_rig import Rig, final
from tests.support.fake_model import FakeModel, frames_of
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.replies import call, text
from tests.support.upstream_calls import SEARCH, told, with_items
from tests.support.word_search import WordSearch

_DOCS = Path(__file__).parents[3] / "docs"
_TEXT = (_DOCS / "tools.md").read_text()
_OWNERS = {
    FunctionTool: "client",
    McpTool: "owned",
    ProvidedTool: "owned",
    FileSearchTool: "owned",
    UpstreamTool: "upstream",
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = _TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def policy_of(setting: str) -> ToolPolicy:
    """The policy that a worker makes of a setting as it is written in the table."""
    written = tomllib.loads(setting.strip("`"))
    searchable = written.pop("embeddings", None) is not None
    given = Tools(**written)
    return ToolPolicy(
        file_search=searchable,
        upstream_types=frozenset(given.upstream_types),
        upstream_labels=frozenset(given.upstream_labels),
        provided=frozenset(entry.partition("=")[0] for entry in given.providers),
    )


@pytest.mark.parametrize(("declared", "setting", "owner"), rows("Whose a tool is"))
def test_a_tool_belongs_to_whom_the_table_says(declared: str, setting: str, owner: str) -> None:
    """T3: decided from the declaration and the settings alone."""
    tools = [json.loads(declared.strip("`"))]
    if owner == "refused":
        with pytest.raises(InvalidRequest) as caught:
            parse_tools(tools, "tools", most=1, policy=policy_of(setting))
        assert str(caught.value.param).startswith("tools[0]")
        return
    [tool] = parse_tools(tools, "tools", most=1, policy=policy_of(setting))
    assert _OWNERS[type(tool)] == owner


BROKEN = ToolOutcome(text="no", error=b'{"type":"mcp_tool_execution_error","content":[]}')
F: dict[str, Any] = {"type": "function", "name": "f"}
G: dict[str, Any] = {"type": "function", "name": "g"}
WEB: dict[str, Any] = {"type": "web_search"}
SEARCH_FILES: dict[str, Any] = {"type": "file_search", "vector_store_ids": ["vs_1"]}
ONLY_F: dict[str, Any] = {"tool_choice": {"type": "allowed_tools", "tools": [F]}}
# What the model calls, by the first cell -> its turn, and what the request has beside the tools.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "an owned tool": (replies.stream(call("owned", "{}")), {}),
    "a file search": (replies.stream(call("file_search", '{"queries": ["a"]}')), {}),
    "a file search without a query": (replies.stream(call("file_search", "{}")), {}),
    "an owned tool that fails": (replies.stream(call("fails", "{}")), {}),
    "an owned tool that `tool_choice` does not allow": (
        replies.stream(call("owned", "{}")),
        ONLY_F,
    ),
    "an owned tool beyond `max_tool_calls`": (
        # The first turn takes the one call that there may be.
        replies.stream(call("owned", "{}")),
        {"max_tool_calls": 1},
    ),
    "a function of the request": (replies.stream(call("f", "{}")), {}),
    "a function that `tool_choice` does not allow": (replies.stream(call("g", "{}")), ONLY_F),
    "a name that nobody declared": (replies.stream(call("nobodys", "{}")), {}),
    "the name of an upstream tool, as a function": (replies.stream(call("web_search", "{}")), {}),
    "an upstream tool, in its server's loop": (
        with_items(text("x"), before=told(SEARCH, ".completed"), output=[SEARCH]),
        {},
    ),
}


@pytest.mark.parametrize(("calls", "item", "who", "then"), rows("What becomes of a call"))
async def test_a_call_becomes_what_the_table_says(
    calls: str, item: str, who: str, then: str
) -> None:
    """T1, T3, T4, T7: its item, who answers it, and whether the model is asked again."""
    stream, fields = CASES[calls]
    provider = FakeProvider("s", "owned", "fails", outcomes={"fails": BROKEN})
    turn = list(frames_of(stream))
    taken = 1 if "max_tool_calls" in fields else 0
    files = WordSearch()
    files.put("vs_1")
    rig = Rig(
        FakeModel(*frames_of(replies.stream(text("done"))), turns=[turn] * (taken + 1)),
        files=files,
        providers=FakeServers(provider),
        policy=ToolPolicy(upstream_types=frozenset({"web_search"})),
    )

    response = final(await rig.stream(tools=[F, G, server("s"), WEB, SEARCH_FILES], **fields))

    others = ("mcp_list_tools", "message", "reasoning")
    made = [i for i in response["output"] if i["type"] not in others][taken:]
    assert ", ".join(f"`{i['type']}`, `{i['status']}`" for i in made) == (
        "" if item == "none" else item
    )
    made_here = len(provider.calls) + len(files.asked)
    assert (made_here == taken + 1) == (who == "the gateway")
    assert (made != [] and made[0]["type"] == "function_call") == (who == "the caller")
    assert len(rig.model.bodies) == taken + (2 if then == "the model goes on" else 1)


def test_every_case_is_in_the_table() -> None:
    """H3: none is left out."""
    assert {row[0] for row in rows("What becomes of a call")} == set(CASES)


def test_the_example_is_the_file() -> None:
    """H3: tests/unit/engine/test_ownership.py runs it through the loop."""
    [shown] = re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL)
    assert shown == (_DOCS / "examples" / "dice.py").read_text()


def test_the_bounds_are_settings() -> None:
    """H3: each that is named exists."""
    named = {name for row in rows("Bounds") for name in re.findall(r"`([a-z_.]+)`", row[1])}
    known = set(Tools.model_fields) | {"model.turn_seconds", "max_tool_calls"}
    assert named <= known
