"""Each feature before, after and live, as one SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

from drift_monitor.actions.weights_manifest import Balance
from drift_monitor.actions.weights_method import Sides
from drift_monitor.config.problem import printable
from drift_monitor.core.design import category
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec, Spec

SHOWN: Final = 60
"""Features drawn at most, the most shifted ones."""
_BINS: Final = 24
_CATEGORIES: Final = 8
_WIDTH, _HEIGHT, _GAP, _ACROSS = 300, 148, 24, 3
_TOP, _PLOT = 68, 92  # above the first panel, and of a panel's bars
_NAME: Final = 44
_BEFORE, _AFTER, _LIVE = "#b9c0c9", "#1f6fb4", "#c8372d"


@dataclass(frozen=True, eq=False)
class Panel:
    """One feature.

    Attributes:
        name: of it.
        said: what is said below the name.
        labels: of the first and the last bin of a number, or of every category.
        shares: of the rows in each bin: before, after, live, shape (3, bins).
        ordered: whether the bins are of a number.
    """

    name: str
    said: str
    labels: tuple[str, ...]
    shares: Floats
    ordered: bool


def draw(monitor: str, sides: Sides, weights: Floats, balance: Sequence[Balance]) -> str:
    """The picture.

    Args:
        monitor: name, for the title.
        sides: samples of both sides.
        weights: of the sampled training rows, shape (n,).
        balance: of the features, most shifted first; those that are not in it come last.
    """
    names = sides.encoding.names
    shifted = {each.feature: each for each in balance}
    order = [*shifted, *(name for name in names if name not in shifted)]
    panels = []
    for name in order[:SHOWN]:
        j = names.index(name)
        panels.append(
            _panel(sides.encoding.specs[j], sides.known[:, j], sides.now[:, j], weights, shifted.get(name))
        )
    rows = -(-len(panels) // _ACROSS)
    width = _ACROSS * (_WIDTH + _GAP) + _GAP
    height = _TOP + rows * (_HEIGHT + _GAP) + (20 if len(order) > SHOWN else 0)
    size = f'width="{width}" height="{height}"'
    title = f"{printable(monitor, 60)}: training rows before and after weighting, and live rows"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect {size} fill="white"/>',
        _text(_GAP, 26, title, size=15),
        *_legend(),
    ]
    for i, panel in enumerate(panels):
        x = _GAP + i % _ACROSS * (_WIDTH + _GAP)
        y = _TOP + i // _ACROSS * (_HEIGHT + _GAP)
        parts += _draw_panel(panel, x, y)
    if len(order) > SHOWN:
        parts.append(_text(_GAP, height - 10, f"and {len(order) - SHOWN} features that are shifted less"))
    return "\n".join([*parts, "</svg>", ""])


def _panel(spec: Spec, known: Floats, now: Floats, weights: Floats, shifted: Balance | None) -> Panel:
    sides = ((known, np.ones(len(known))), (known, weights), (now, np.ones(len(now))))
    if isinstance(spec, NumericSpec):
        both = np.concatenate((known[~np.isnan(known)], now[~np.isnan(now)]))
        low, high = np.quantile(both, (0.005, 0.995)).tolist() if len(both) else (0.0, 1.0)
        span = high - low
        if not np.isfinite(span) or span <= 0:
            low, span = low - 0.5, 1.0
        shares = []
        for values, w in sides:
            there = ~np.isnan(values)
            at = np.clip((values[there] - low) / span * _BINS, 0, _BINS - 1).astype(np.int64)
            shares.append(_shares(at, w[there], _BINS))
        labels: tuple[str, ...] = (f"{low:.4g}", f"{low + span:.4g}")
    else:
        labels, shares = _categories(spec, sides)
    missing = [float(w[np.isnan(values)].sum() / w.sum()) for values, w in sides]
    said = "" if shifted is None else f"{abs(shifted.before):.2f} sd off, {abs(shifted.after):.2f} weighted"
    if max(missing) >= 0.005:
        said += f"; missing {missing[0]:.1%}, {missing[1]:.1%}, live {missing[2]:.1%}"
    return Panel(spec.name, said.removeprefix("; "), labels, np.array(shares), isinstance(spec, NumericSpec))


def _categories(
    spec: CategoricalSpec, sides: Sequence[tuple[Floats, Floats]]
) -> tuple[tuple[str, ...], list[Floats]]:
    """The most frequent codes of any side, and the others together."""
    codes = np.unique(np.concatenate([values[~np.isnan(values)] for values, _ in sides]))
    if not len(codes):
        return ("",), [np.zeros(1)] * len(sides)
    every = []
    for values, w in sides:
        there = ~np.isnan(values)
        every.append(_shares(np.searchsorted(codes, values[there]), w[there], len(codes)))
    order = np.argsort(-np.max(every, axis=0), kind="stable")
    first, rest = order[:_CATEGORIES], order[_CATEGORIES:]
    labels = [category(spec, code) for code in codes[first].tolist()]
    shares = [side[first] for side in every]
    if len(rest):
        labels.append(f"({len(rest)} more)")
        shares = [np.append(side[first], side[rest].sum()) for side in every]
    return tuple(labels), shares


def _shares(at: np.ndarray[tuple[int], np.dtype[np.int64]], weights: Floats, bins: int) -> Floats:
    found = np.bincount(at, weights, bins).astype(np.float64)
    total = float(found.sum())
    return found / total if total else found


def _legend() -> list[str]:
    parts = [f'<rect x="{_GAP}" y="38" width="14" height="10" fill="{_BEFORE}"/>']
    parts.append(_text(_GAP + 19, 47, "training rows"))
    for x, color, said in ((130, _AFTER, "training rows, weighted"), (300, _LIVE, "live rows")):
        parts.append(f'<line x1="{x}" y1="43" x2="{x + 16}" y2="43" stroke="{color}" stroke-width="2.5"/>')
        parts.append(_text(x + 21, 47, said))
    return parts


def _draw_panel(panel: Panel, x: float, y: float) -> list[str]:
    parts = [_text(x, y + 12, printable(panel.name, _NAME), size=12, bold=True)]
    parts.append(_text(x, y + 26, panel.said, size=10, color="#555"))
    base, top = y + 34 + _PLOT, float(panel.shares.max()) or 1.0
    bins = panel.shares.shape[1]
    step = _WIDTH / bins
    heights = panel.shares / top * _PLOT
    inner = step if panel.ordered else step * 0.72
    shift = 0 if panel.ordered else step * 0.14
    for i, tall in enumerate(heights[0].tolist()):
        parts.append(
            f'<rect x="{_n(x + i * step + shift)}" y="{_n(base - tall)}" width="{_n(inner)}" height="{_n(tall)}" '
            f'fill="{_BEFORE}"/>'
        )
    for row, color, wide in ((2, _LIVE, 2.5), (1, _AFTER, 1.5)):
        if panel.ordered:
            points = [
                f"{_n(x + (i + e) * step)},{_n(base - heights[row, i])}" for i in range(bins) for e in (0, 1)
            ]
            parts.append(
                f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="{wide}" '
                'opacity="0.85"/>'
            )
        else:
            parts += [
                f'<line x1="{_n(x + i * step + shift)}" x2="{_n(x + i * step + shift + inner)}" '
                f'y1="{_n(base - tall)}" y2="{_n(base - tall)}" stroke="{color}" stroke-width="{wide}"/>'
                for i, tall in enumerate(heights[row].tolist())
            ]
    parts.append(f'<line x1="{x}" x2="{x + _WIDTH}" y1="{base}" y2="{base}" stroke="#888"/>')
    if panel.ordered:
        parts.append(_text(x, base + 14, panel.labels[0], color="#555"))
        parts.append(_text(x + _WIDTH, base + 14, panel.labels[-1], anchor="end", color="#555"))
    else:
        room = max(2, int(step / 6))
        parts += [
            _text(x + (i + 0.5) * step, base + 14, printable(label, room), anchor="middle", color="#555")
            for i, label in enumerate(panel.labels)
        ]
    return parts


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 11,
    bold: bool = False,
    anchor: str = "start",
    color: str = "#222",
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" text-anchor="{anchor}" fill="{color}"{weight}>'
        f"{escape(text)}</text>"
    )
