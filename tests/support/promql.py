"""As much of PromQL as our alerts and dashboards use: parsed, and evaluated over given series.

What it does not know it refuses. Counters are extrapolated as Prometheus does; by hand, `promtool test rules`
was seen to agree with it on every case of `tests.support.alert_cases`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Value = float | Vector
Samples = Sequence[tuple[float, float]]
"""Seconds and values, in order."""

LOOKBACK = 300.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TOKEN = re.compile(
    r"\s*(?:(?P<duration>\[\d+[smhd]\])|(?P<number>\d+(?:\.\d+)?)|(?P<name>[a-zA-Z_:][\w:]*)"
    r'|(?P<text>"[^"]*")|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/(){},=<>]))'
)
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else (math.nan if a == 0 or math.isnan(a) else math.inf),
}
_COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_GATHERED: Mapping[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "avg": lambda values: sum(values) / len(values),
    "count": lambda values: float(len(values)),
}
_FUNCTIONS = ("rate", "increase", "histogram_quantile", "absent")


@dataclass(frozen=True)
class Number:
    """A number."""

    value: float


@dataclass(frozen=True)
class Selector:
    """`name{label="value"}[range]`."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()
    seconds: float | None = None

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series with these labels, its name among them, is meant."""
        if labels.get("__name__") != self.name:
            return False
        return all(_matches(labels.get(name, ""), sign, text) for name, sign, text in self.matchers)


@dataclass(frozen=True)
class Call:
    """`function(arguments)`."""

    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Gathered:
    """`sum by (labels) (of)`."""

    how: str
    by: tuple[str, ...]
    of: Expression


@dataclass(frozen=True)
class Both:
    """`left sign right`."""

    sign: str
    left: Expression
    right: Expression


Expression = Number | Selector | Call | Gathered | Both


def parse(text: str) -> Expression:
    """Return the expression; raises ValueError for what is none, or not known here."""
    parser = _Parser(text)
    expression = parser.either()
    if parser.here is not None:
        raise ValueError(f"{parser.here!r} is not understood in {text!r}")
    return expression


def parts(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and all that is in it."""
    yield expression
    match expression:
        case Call(_, inner):
            for each in inner:
                yield from parts(each)
        case Gathered(_, _, of):
            yield from parts(of)
        case Both(_, left, right):
            yield from parts(left)
            yield from parts(right)
        case _:
            pass


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            found = _TOKEN.match(text, place)
            if found is None or found.lastgroup is None:
                raise ValueError(f"{text[place:]!r} is not understood")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            place = found.end()
        self._place = 0

    @property
    def here(self) -> str | None:
        return self._tokens[self._place][1] if self._place < len(self._tokens) else None

    def _take(self, *wanted: str) -> str:
        here = self.here
        if here is None or (wanted and here not in wanted):
            raise ValueError(f"{here!r} is not one of {wanted}")
        self._place += 1
        return here

    def _kind(self) -> str:
        return self._tokens[self._place][0] if self._place < len(self._tokens) else ""

    def either(self) -> Expression:
        return self._row(("or",), lambda: self._row(("and",), self._compared))

    def _compared(self) -> Expression:
        return self._row(tuple(_COMPARED), lambda: self._row(("+", "-"), self._product))

    def _product(self) -> Expression:
        return self._row(("*", "/"), self._one)

    def _row(self, signs: tuple[str, ...], inner: Callable[[], Expression]) -> Expression:
        left = inner()
        while self.here in signs:
            sign = self._take()
            left = Both(sign, left, inner())
        return left

    def _one(self) -> Expression:
        kind = self._kind()
        token = self._take()
        if token == "(":
            inner = self.either()
            self._take(")")
            return inner
        if kind == "number":
            return Number(float(token))
        if kind != "name":
            raise ValueError(f"{token!r} begins nothing")
        if token in _GATHERED:
            return self._gathered(token)
        if self.here == "(":
            return self._call(token)
        return self._selector(token)

    def _gathered(self, how: str) -> Expression:
        by = self._names() if self.here == "by" else None
        self._take("(")
        of = self.either()
        self._take(")")
        if by is None:
            by = self._names() if self.here == "by" else ()
        return Gathered(how, by, of)

    def _names(self) -> tuple[str, ...]:
        self._take("by")
        self._take("(")
        names = []
        while self.here != ")":
            names.append(self._take())
            if self.here == ",":
                self._take()
        self._take(")")
        return tuple(names)

    def _call(self, function: str) -> Expression:
        if function not in _FUNCTIONS:
            raise ValueError(f"{function} is not known here")
        self._take("(")
        arguments = [self.either()]
        while self.here == ",":
            self._take()
            arguments.append(self.either())
        self._take(")")
        return Call(function, tuple(arguments))

    def _selector(self, name: str) -> Expression:
        matchers = []
        if self.here == "{":
            self._take()
            while self.here != "}":
                label = self._take()
                sign = self._take("=", "!=", "=~", "!~")
                matchers.append((label, sign, self._take()[1:-1]))
                if self.here == ",":
                    self._take()
            self._take("}")
        seconds = None
        if self._kind() == "duration":
            given = self._take()[1:-1]
            seconds = float(given[:-1]) * _UNITS[given[-1]]
        return Selector(name, tuple(matchers), seconds)


@dataclass
class Series:
    """What was scraped: samples by name and labels."""

    samples: dict[Labels, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, labels: Mapping[str, str], samples: Samples) -> None:
        """Add a series."""
        self.samples[frozenset({"__name__": name, **labels}.items())] = list(samples)

    def value(self, expression: Expression, at: float) -> Value:
        """Return what an expression is at a moment."""
        match expression:
            case Number(value):
                return value
            case Selector(_, _, None):
                return self._instant(expression, at)
            case Selector():
                raise ValueError("a range is for rate and increase")
            case Gathered(how, by, of):
                return _gather(how, by, _vector(self.value(of, at)))
            case Call("histogram_quantile", (Number(quantile), of)):
                return _quantiles(quantile, _vector(self.value(of, at)))
            case Call("absent", (Selector(_, matchers, None) as selector,)):
                named = frozenset((label, text) for label, sign, text in matchers if sign == "=")
                return {} if self._instant(selector, at) else {named: 1.0}
            case Call(function, (Selector() as selector,)):
                return self._rates(selector, at, per_second=function == "rate")
            case Both(sign, left, right):
                return _both(sign, self.value(left, at), self.value(right, at))
            case _:
                raise ValueError(f"{expression} cannot be evaluated")

    def _instant(self, selector: Selector, at: float) -> Vector:
        found = {}
        for labels, samples in self._taken(selector):
            past = [value for time, value in samples if at - LOOKBACK < time <= at]
            if past:
                found[labels] = past[-1]
        return found

    def _rates(self, selector: Selector, at: float, *, per_second: bool) -> Vector:
        seconds = selector.seconds
        assert seconds is not None
        found = {}
        for labels, samples in self._taken(selector):
            window = [(time, value) for time, value in samples if at - seconds <= time <= at]
            if len(window) > 1:
                grown = _increase(window, at - seconds, at)
                found[_unnamed(labels)] = grown / seconds if per_second else grown
        return found

    def _taken(self, selector: Selector) -> Iterator[tuple[Labels, list[tuple[float, float]]]]:
        for labels, samples in self.samples.items():
            if selector.takes(dict(labels)):
                yield labels, samples


def _increase(window: Samples, start: float, end: float) -> float:
    """As Prometheus does it: resets are added, and the window's edges extrapolated."""
    grown = window[-1][1] - window[0][1]
    for (_, before), (_, after) in pairwise(window):
        grown += before if after < before else 0
    sampled = window[-1][0] - window[0][0]
    to_start, to_end = window[0][0] - start, end - window[-1][0]
    if grown > 0 and window[0][1] >= 0:
        to_start = min(to_start, sampled * window[0][1] / grown)
    apart = sampled / (len(window) - 1)
    reach = sampled
    for edge in (to_start, to_end):
        reach += edge if edge < apart * 1.1 else apart / 2
    return grown * reach / sampled


def _quantiles(quantile: float, vector: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in vector.items():
        given = dict(_unnamed(labels))
        bound = float(given.pop("le").replace("+Inf", "inf"))
        groups[frozenset(given.items())].append((bound, value))
    return {labels: _quantile(quantile, sorted(buckets)) for labels, buckets in groups.items()}


def _quantile(quantile: float, buckets: list[tuple[float, float]]) -> float:
    total = buckets[-1][1]
    if not total or len(buckets) < 2:
        return math.nan
    rank = quantile * total
    before, low = 0.0, 0.0
    for bound, count in buckets[:-1]:
        if count >= rank:
            return low + (bound - low) * (rank - before) / (count - before)
        before, low = count, bound
    return low


def _gather(how: str, by: tuple[str, ...], vector: Vector) -> Vector:
    groups: dict[Labels, list[float]] = defaultdict(list)
    for labels, value in vector.items():
        groups[frozenset((k, v) for k, v in labels if k in by)].append(value)
    return {labels: _GATHERED[how](values) for labels, values in groups.items()}


def _both(sign: str, left: Value, right: Value) -> Value:
    if isinstance(left, float) and isinstance(right, float):
        return _ARITHMETIC[sign](left, right)
    if sign in ("and", "or"):
        return _set(sign, _vector(left), _vector(right))
    if isinstance(left, float):
        if sign in _COMPARED:
            raise ValueError("the number stands on the right")
        return {k: _ARITHMETIC[sign](left, v) for k, v in _bare(_vector(right)).items()}
    pairs = _pairs(left, right)
    if sign in _COMPARED:
        return {k: a for k, a, b in pairs if _COMPARED[sign](a, b)}
    return {_unnamed(k): _ARITHMETIC[sign](a, b) for k, a, b in pairs}


def _pairs(left: Vector, right: Value) -> list[tuple[Labels, float, float]]:
    if isinstance(right, float):
        return [(labels, value, right) for labels, value in left.items()]
    others = _bare(right)
    return [(k, v, others[_unnamed(k)]) for k, v in left.items() if _unnamed(k) in others]


def _set(sign: str, left: Vector, right: Vector) -> Vector:
    if sign == "and":
        there = _bare(right)
        return {k: v for k, v in left.items() if _unnamed(k) in there}
    there = _bare(left)
    return left | {k: v for k, v in right.items() if _unnamed(k) not in there}


def _bare(vector: Vector) -> Vector:
    return {_unnamed(labels): value for labels, value in vector.items()}


def _unnamed(labels: Labels) -> Labels:
    return frozenset((name, value) for name, value in labels if name != "__name__")


def _vector(value: Value) -> Vector:
    if isinstance(value, float):
        raise ValueError("a number is no vector")
    return value


def _matches(value: str, sign: str, text: str) -> bool:
    if sign in ("=", "!="):
        return (value == text) == (sign == "=")
    return (re.fullmatch(text, value) is not None) == (sign == "=~")
