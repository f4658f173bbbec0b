"""Rankings put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fusion import Place, best_of, fused, reach, without

A, B, C = ("a", 0), ("b", 0), ("c", 0)


def test_what_is_first_everywhere_has_one() -> None:
    """The best that there can be, and what is first in one of two rankings has half of it."""
    scores = fused([([A, B], 1.0), ([A, C], 1.0)])
    assert scores[A] == 1.0
    assert fused([([A], 1.0), ([B], 1.0)]) == {A: 0.5, B: 0.5}


def test_weights_shift_the_order() -> None:
    """A ranking of weight zero says nothing but what it has."""
    rankings = ([A, B], [B, A])
    assert fused([(rankings[0], 3.0), (rankings[1], 1.0)])[A] > 0.99
    alone = fused([(rankings[0], 1.0), (rankings[1], 0.0)])
    assert alone[A] == 1.0
    assert alone[B] < 1.0


def test_nothing_makes_nothing() -> None:
    """No ranking, or none that counts, has no scores."""
    assert fused([]) == {}
    assert fused([([A], 0.0)]) == {}


def test_the_best_of_several_queries_counts() -> None:
    """A chunk that answers one query well is not worse for another that it does not answer."""
    assert best_of([{A: 0.2, B: 0.9}, {A: 0.8}]) == {A: 0.8, B: 0.9}


def test_what_is_gone_takes_no_rank() -> None:
    """The next one has its place."""
    assert without([A, B, C], {A}) == [B, C]


_RANKING = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), unique=True, max_size=20
)


@given(st.lists(st.tuples(_RANKING, st.floats(0.01, 10)), min_size=1, max_size=4))
def test_scores_are_of_one_measure(rankings: list[tuple[list[Place], float]]) -> None:
    """T8: 0 to 1; who stands before another in every ranking has more."""
    scores = fused(rankings)
    assert all(0 < score <= 1 + 1e-9 for score in scores.values())
    for place in scores:
        for other in scores:
            if all(_before(place, other, ranking) for ranking, _ in rankings):
                assert scores[place] > scores[other]


def _before(place: Place, other: Place, ranking: list[Place]) -> bool:
    return place in ranking and other in ranking and ranking.index(place) < ranking.index(other)


def test_what_a_deeper_look_can_give_is_known() -> None:
    """T8: what the best place then has that it can be, and nothing more where the rankings have ended."""

    def can(*rankings: tuple[list[Place], int | None], among: Place) -> float:
        return reach([(places, 1.0, rank) for places, rank in rankings], [among])

    def has(*rankings: list[Place], place: Place) -> object:
        return pytest.approx(fused([(places, 1.0) for places in rankings])[place])

    assert can(([A, B], None), ([A], None), among=B) == has([A, B], [A], place=B)
    assert can(([A, B], 3), ([A, B], 3), among=C) == has([A, B, C], [A, B, C], place=C)
    assert can(([A, B], 3), ([B], None), among=A) == has([A, B], [B], place=A)
    assert can(([A, B], None), ([B], 2), among=A) == has([A, B], [B, A], place=A)
    assert reach([], []) == 0
