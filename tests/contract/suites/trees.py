"""Any sequence of operations gives the histories of a simple model."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import LeaseLost
from engine.ports import Lease, ResponseStore
from tests.support.stored import a_response, an_end, an_item, context, history


@dataclass
class _Told:
    """The simple model of a response: what it said, what it continued and how far that was then."""

    name: str
    before: _Told | None
    before_was_finished: bool
    input: list[str]
    output: list[str] = field(default_factory=list)
    lease: Lease | None = None
    state: str = "running"

    def history(self, *, with_output: bool) -> list[str]:
        earlier = self.before.history(with_output=self.before_was_finished) if self.before else []
        if self.state == "gone":
            return earlier
        return earlier + self.input + (self.output if with_output else [])


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["accept", "accept", "accept", "finish", "finish", "abandon", "delete"]),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    min_size=3,
    max_size=50,
)


class TreeContract:
    """Any sequence of operations gives the histories of a simple model."""

    @settings(
        max_examples=80,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(steps=_STEPS)
    async def test_any_tree_has_the_histories_of_the_simple_model(
        self, store: ResponseStore, steps: list[tuple[str, int, int]]
    ) -> None:
        """M2, M10, P7: accept, finish, abandon, delete anywhere, in any order."""
        tenant = f"tree-{uuid.uuid4().hex}"
        told: list[_Told] = []
        for number, (step, which, count) in enumerate(steps):
            live = [response for response in told if response.state != "gone"]
            chosen = live[which % len(live)] if live and which else None
            if step == "accept":
                told.append(await _accept(store, tenant, str(number), chosen, count))
            elif chosen is not None:
                await _change(store, tenant, chosen, step, count)
        for response in told:
            found = await store.load_context(tenant, response.name)
            if response.state == "gone":
                assert found is None
            else:
                expected = response.history(with_output=True)
                assert await history(store, tenant, response.name) == expected


async def _accept(
    store: ResponseStore, tenant: str, name: str, before: _Told | None, count: int
) -> _Told:
    told = _Told(
        name,
        before,
        before is not None and before.state == "finished",
        [f"{name}/in{number}" for number in range(count)],
    )
    point = None if before is None else (await context(store, tenant, before.name)).end
    new = a_response(tenant, name, input=[an_item(i) for i in told.input], after=point)
    told.lease = await store.accept(new)
    return told


async def _change(store: ResponseStore, tenant: str, told: _Told, step: str, count: int) -> None:
    assert told.lease is not None
    if step == "delete":
        assert await store.delete(tenant, told.name)
        told.state = "gone"
    elif step == "abandon":
        await store.abandon(told.lease)
        told.state = "gone" if told.state == "running" else told.state
    elif told.state == "running":
        told.output = [f"{told.name}/out{number}" for number in range(count)]
        await store.finish(an_end(told.lease, output=[an_item(i) for i in told.output]))
        told.state = "finished"
    else:
        with pytest.raises(LeaseLost):
            await store.finish(an_end(told.lease))
