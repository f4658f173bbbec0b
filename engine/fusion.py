"""Several rankings made one (pure), in two ways; 1 is the best that there can be in both.

`fused` is reciprocal rank fusion, as the API has it where a client gives weights: a place in a ranking is
worth 1 / (60 + rank), times the weight of the ranking, and the sum is divided by what the first place in all
rankings is worth.

`blended` is what is done otherwise. Ranks do not tell a chunk that has the one rare word of a question from
one that has its "the" and "how"; scores do. Each is taken as a share of the best of its ranking, and what is
near by meaning counts more. The shares were chosen on the questions of the tests (docs/vector-stores.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

Place = tuple[str, int]
"""A chunk: its attachment, and its number there."""

_DAMPING = 60
_OF_VECTORS, _OF_WORDS = 0.7, 0.3


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


def blended(cosines: Mapping[Place, float], words: Mapping[Place, float]) -> dict[Place, float]:
    """Return the score of each place, 0 to 1, from cosines and from the weights of words.

    What was not found by its vector is taken to be as far as the farthest that was; it has no words if it
    was not found by them.
    """
    near, said = _shares(cosines), _shares(words)
    farthest = min(near.values(), default=0.0)
    return {
        place: _OF_VECTORS * near.get(place, farthest) + _OF_WORDS * said.get(place, 0.0)
        for place in near | said
    }


def blended_reach(
    cosines: Mapping[Place, float],
    words: Mapping[Place, float],
    deeper: tuple[float | None, float | None],
    among: Iterable[Place],
) -> float:
    """Return the best score that `blended` can still give where the rankings go on behind their ends.

    `deeper`: the best cosine and the best weight of words that come behind the ends, None where nothing
    does; of several stores, one may end nearer than the farthest of another. `among` are ranked places.
    """
    near, said = _shares(cosines), _shares(words)
    nearer = max(min(near.values(), default=0.0), _share(deeper[0], cosines))
    more = _share(deeper[1], words)
    unseen = _OF_VECTORS * nearer + _OF_WORDS * more
    ranked = (
        _OF_VECTORS * near.get(place, nearer) + _OF_WORDS * said.get(place, more) for place in among
    )
    return max(unseen, max(ranked, default=0.0))


def _shares(scores: Mapping[Place, float]) -> dict[Place, float]:
    best = max(scores.values(), default=0.0)
    return {place: max(0.0, score) / best if best > 0 else 0.0 for place, score in scores.items()}


def _share(score: float | None, scores: Mapping[Place, float]) -> float:
    best = max(scores.values(), default=0.0)
    return max(0.0, score) / best if score is not None and best > 0 else 0.0


def best_of(scored: Sequence[Mapping[Place, float]]) -> dict[Place, float]:
    """Return the best score that each place has for any of several queries."""
    best: dict[Place, float] = {}
    for scores in scored:
        for place, score in scores.items():
            best[place] = max(score, best.get(place, 0.0))
    return best


def without(ranking: Mapping[Place, float], gone: Collection[Place]) -> dict[Place, float]:
    """Return a ranking, in its order, in which those that are gone take no rank."""
    return {place: score for place, score in ranking.items() if place not in gone}
