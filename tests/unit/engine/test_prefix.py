"""What a model is sent grows at its end alone, so that its prefix cache hits (rule M9, promise 8)."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.affinity import HEADER
from engine.ports import Context
from tests.support import replies
from tests.support.engine_rig import Rig
from tests.support.fake_model import FakeModel, Step, frames_of
from tests.support.fake_tools import FakeProvider, FakeServers, server
from tests.support.faulty_store import FaultyStore
from tests.support.replies import call, reasoning, text

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def turn(*parts: Any) -> list[Step]:
    return list(frames_of(replies.stream(*parts)))


TURNS = [
    turn(reasoning("let me", " see"), text("I look."), call("look", '{"a":', "1}")),
    turn(reasoning("and"), call("look", "{}"), call("look", '{"b": "\\u00fc"}')),
    turn(reasoning("now the client"), call("f", '{"x": [1, 2.0]}'), call("f", "")),
    turn(text("Thanks. ", "\\u0000 \u00fc")),
    turn(reasoning("once more"), call("look", '{"c":3}')),
    turn(text("Done.")),
]


async def test_each_turn_begins_with_all_of_the_one_before() -> None:
    """M9: over reasoning, text, owned and client calls, within a response and from one to the next."""
    rig = Rig(FakeModel(turns=TURNS), providers=FakeServers(FakeProvider("s", "look")))
    fields: dict[str, Any] = {
        "tools": [FUNCTION, server("s")],
        "instructions": "Be brief.",
        "temperature": 0.5,
    }

    first = (await rig.create(input="hi", **fields)).json
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    outputs = [
        {"type": "function_call_output", "call_id": each["call_id"], "output": "4"}
        for each in calls
    ]
    second = (await rig.create(input=outputs, previous_response_id=first["id"], **fields)).json
    third = (await rig.create(input="more", previous_response_id=second["id"], **fields)).json

    assert third["output"][-1]["content"][0]["text"] == "Done."
    assert len(rig.model.bodies) == len(TURNS)
    for before, after in zip(rig.model.bodies, rig.model.bodies[1:], strict=False):
        assert before.endswith(b"]}")
        assert after.startswith(before[:-2] + b",")
    assert len({headers[HEADER] for headers in rig.model.headers}) == 1


class Unreadable(FaultyStore):
    """Has a history that is no JSON."""

    async def load_context(self, tenant: str, response_id: str) -> Context | None:
        """The store's own, but for what the model is sent of it."""
        context = await super().load_context(tenant, response_id)
        assert context is not None
        replace = msgspec.structs.replace
        items = [replace(item, replay=b"<%d>" % n) for n, item in enumerate(context.items)]
        return replace(context, items=items)


async def test_no_byte_of_the_history_is_parsed() -> None:
    """P8: what is stored is sent as it is, so that a turn costs what is new, however long the history."""
    at = Rig(FakeModel(*frames_of(replies.stream(text("ok")))), store=Unreadable())
    first = await at.create()
    await at.create(input="new", previous_response_id=first.json["id"])
    assert at.model.bodies[-1].endswith(b'"input":[<0>,<1>,{"role":"user","content":"new"}]}')
