"""Several rankings made one (pure).

Ranks and not scores are put together: a cosine and the weight of words have no common measure. A place in a
ranking is worth 1 / (60 + rank), times the weight of the ranking: reciprocal rank fusion. The sum is divided
by what the first place in all rankings is worth, so that 1 is the best that there can be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

Place = tuple[str, int]
"""A chunk: its attachment, and its number there."""

_DAMPING = 60


def fused(rankings: Sequence[tuple[Sequence[Place], float]]) -> dict[Place, float]:
    """Return the score of each place, 0 to 1, from rankings, best first, with their weights."""
    best = sum(weight for _, weight in rankings) / (_DAMPING + 1)
    scores: dict[Place, float] = {}
    for ranking, weight in rankings:
        for rank, place in enumerate(ranking, 1):
            scores[place] = scores.get(place, 0.0) + weight / (_DAMPING + rank)
    return {place: score / best for place, score in scores.items()} if best else {}


def reach(
    rankings: Sequence[tuple[Sequence[Place], float, int | None]], among: Iterable[Place]
) -> float:
    """Return the best score, 0 to 1, that rankings which go on behind their end can still give.

    The third of each is the rank at which what is not in it yet comes at the earliest; None where it has
    ended. Either some place `among` those that are in a ranking gets it, or one that is in none yet.
    """
    scores = fused([(ranking, weight) for ranking, weight, _ in rankings])
    best = sum(weight for _, weight, _ in rankings) / (_DAMPING + 1)
    more = [
        (set(ranking), weight / (_DAMPING + rank) / best)
        for ranking, weight, rank in rankings
        if rank is not None and best
    ]
    unseen = sum(gain for _, gain in more)
    seen = (
        scores.get(place, 0.0) + sum(gain for places, gain in more if place not in places)
        for place in among
    )
    return max(unseen, max(seen, default=0.0))


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
