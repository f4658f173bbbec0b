"""Several rankings made one (pure).

Ranks and not scores are put together: a cosine and the weight of words have no common measure. A place in a
ranking is worth 1 / (60 + rank), times the weight of the ranking: reciprocal rank fusion. What a ranking does
not have stands there behind its last: else the last of two rankings would have more than the first of one.
The sum is divided by what the first place in all rankings is worth, so that 1 is the best that there can be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Place = tuple[str, int]
"""A chunk: its attachment, and its number there."""

_DAMPING = 60


def fused(rankings: Sequence[tuple[Sequence[Place], float]]) -> dict[Place, float]:
    """Return the score of each place, 0 to 1, from rankings, best first, with their weights."""
    best = sum(weight for _, weight in rankings) / (_DAMPING + 1)
    if not best:
        return {}
    absent = sum(weight / (_DAMPING + len(ranking) + 1) for ranking, weight in rankings)
    scores: dict[Place, float] = {}
    for ranking, weight in rankings:
        behind = 1 / (_DAMPING + len(ranking) + 1)
        for rank, place in enumerate(ranking, 1):
            gain = weight * (1 / (_DAMPING + rank) - behind)
            scores[place] = scores.get(place, absent) + gain
    return {place: score / best for place, score in scores.items()}


def best_of(scored: Sequence[Mapping[Place, float]]) -> dict[Place, float]:
    """Return the best score that each place has for any of several queries."""
    best: dict[Place, float] = {}
    for scores in scored:
        for place, score in scores.items():
            best[place] = max(score, best.get(place, 0.0))
    return best


def without(ranking: Sequence[Place], gone: Collection[Place]) -> list[Place]:
    """Return a ranking in which those that are gone take no rank."""
    return [place for place in ranking if place not in gone]
