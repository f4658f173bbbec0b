"""A curve as SVG: enough to see whether something grows, without a library for it."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH, _HEIGHT, _EDGE = 640, 240, 48
_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37")

Curve = tuple[str, Sequence[float]]
"""A label and its values, one for each place of the x axis."""


def plot(title: str, unit: str, places: Sequence[int], curves: Sequence[Curve]) -> str:
    """Return an SVG of the curves over `places`, the y axis from 0 to the highest value."""
    top = max(max(values) for _, values in curves)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_EDGE, 16, title),
        _text(4, _EDGE - 8, f"{top:.1f} {unit}"),
        _text(_EDGE - 14, _HEIGHT - _EDGE + 4, "0"),
        _text(_WIDTH - _EDGE - 16, _HEIGHT - _EDGE + 18, str(places[-1])),
        f'<path d="M{_EDGE} {_EDGE} V{_HEIGHT - _EDGE} H{_WIDTH - _EDGE}" fill="none" stroke="#888"/>',
    ]
    for number, (label, values) in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{_x(place / places[-1]):.1f},{_y(value / top):.1f}"
            for place, value in zip(places, values, strict=True)
        )
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        lines.append(_text(_EDGE + 160 * number, _HEIGHT - 8, label, colour))
    return "\n".join([*lines, "</svg>", ""])


def _x(share: float) -> float:
    return _EDGE + share * (_WIDTH - 2 * _EDGE)


def _y(share: float) -> float:
    return _HEIGHT - _EDGE - share * (_HEIGHT - 2 * _EDGE)


def _text(x: float, y: float, text: str, colour: str = "black") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{text}</text>'
