"""Rankings put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fusion import Place, best_of, blended, blended_reach, fused, reach, without

_Scores = dict[Place, float]
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


def test_a_rare_word_counts_more_than_many_common_ones() -> None:
    """What is nearest stays first where others share common words alone, and not where one has a rare one."""
    cosines = {A: 0.5, B: 0.4, C: 0.1}
    assert _order(blended(cosines, {C: 1.1, B: 1.0})) == [B, A, C]
    assert _order(blended({**cosines, B: 0.2}, {C: 1.1, B: 1.0})) == [A, B, C]
    assert _order(blended({**cosines, C: 0.4}, {C: 9.0, B: 1.0})) == [C, A, B]


def test_what_was_found_in_one_way_alone_is_found() -> None:
    """By words: as if it were as far as the farthest. By vector: as if it had no word."""
    assert blended({A: 1.0, B: 0.5}, {C: 3.0}) == pytest.approx({A: 0.7, B: 0.35, C: 0.65})
    assert blended({}, {C: 3.0}) == pytest.approx({C: 0.3})
    assert blended({A: -0.2, B: -0.1}, {}) == {A: 0.0, B: 0.0}


def _order(scores: dict[Place, float]) -> list[Place]:
    return sorted(scores, key=lambda place: -scores[place])


def test_nothing_makes_nothing() -> None:
    """No ranking, or none that counts, has no scores."""
    assert blended({}, {}) == {}
    assert fused([]) == {}
    assert fused([([A], 0.0)]) == {}


def test_the_best_of_several_queries_counts() -> None:
    """A chunk that answers one query well is not worse for another that it does not answer."""
    assert best_of([{A: 0.2, B: 0.9}, {A: 0.8}]) == {A: 0.8, B: 0.9}


def test_what_is_gone_takes_no_rank() -> None:
    """The next one has its place."""
    assert list(without({A: 0.1, C: 0.3, B: 0.2}, {A}).items()) == [(C, 0.3), (B, 0.2)]


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


_SCORES = st.dictionaries(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), st.floats(-1, 99)
)


@given(_SCORES, _SCORES)
def test_blended_scores_are_of_one_measure(cosines: _Scores, words: _Scores) -> None:
    """T8: 0 to 1; who has more of both has more."""
    scores = blended(cosines, words)
    assert set(scores) == {*cosines, *words}
    assert all(0 <= score <= 1 + 1e-9 for score in scores.values())
    both = [place for place in cosines if place in words]
    for place in both:
        for other in both:
            if cosines[place] >= cosines[other] and words[place] >= words[other]:
                assert scores[place] >= scores[other]


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


@given(_SCORES, _SCORES, _SCORES, _SCORES)
def test_a_deeper_look_blends_to_no_more_than_is_foretold(
    cosines: _Scores, words: _Scores, more_cosines: _Scores, more_words: _Scores
) -> None:
    """T8: whatever comes behind the ends of the rankings, worse than what is in them."""
    last = min(words.values(), default=99.0)
    nearest = min(cosines.values(), default=99.0)
    deeper = {place: min(score, last) for place, score in more_words.items() if place not in words}
    behind = {p: min(score, nearest) for p, score in more_cosines.items() if p not in cosines}
    if not words or not cosines:
        return
    ends = (max(behind.values(), default=None), max(deeper.values(), default=None))
    most = blended_reach(cosines, words, ends, {*cosines, *words})
    assert max(blended({**cosines, **behind}, {**words, **deeper}).values()) <= most + 1e-9


def test_a_store_may_go_on_nearer_than_the_farthest_of_another() -> None:
    """T8: what is behind its end has its cosine, and not that of the farthest."""
    cosines, words = {A: 1.0, B: 0.1}, {C: 1.0}
    most = blended_reach(cosines, words, (0.9, None), [C])
    assert most == pytest.approx(blended({**cosines, C: 0.9}, words)[C])
    assert most > blended(cosines, words)[C] + 0.5
