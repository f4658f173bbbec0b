"""Names that come from outside, as values of labels: the first so many, and `other` for the rest.

The names that a worker's former life has used count with the first ones, so that restarts do not add to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

OTHER = "other"
# A name is shown; what is longer is nobody's real name.
_LONGEST = 120


class Names:
    """Tells at most `most` names apart; `former` are used already."""

    def __init__(self, most: int, former: Iterable[str] = ()) -> None:
        self._most = most
        self._known = {name for name in former if name not in ("", OTHER)}

    def learn(self, name: str) -> str:
        """Return the value for a name that has proved to be real; it has a place, while there is one."""
        if name in self._known:
            return name
        if len(self._known) >= self._most or len(name) > _LONGEST or not name.isprintable():
            return OTHER
        self._known.add(name)
        return name

    def shown(self, name: str) -> str:
        """Return the value for a name of which nobody knows whether it is real."""
        return name if name in self._known else OTHER


def former_names(keys: Iterable[str], label: str) -> set[str]:
    """Return the values that a label has in keys of `extproc.metrics.book`."""
    found = set()
    for key in keys:
        value = json.loads(key)[2].get(label)
        if value:
            found.add(value)
    return found
