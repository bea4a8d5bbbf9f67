"""Pages for people: what is watched, how it stands, and what to blame."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2

from drift_monitor import __version__
from drift_monitor.config.models import Config, Monitor
from drift_monitor.core.policy import format_duration
from drift_monitor.core.retraining import Retraining
from drift_monitor.core.types import CheckResult, Episode, Histogram
from drift_monitor.service.basis import LABELS
from drift_monitor.service.snapshot import Snapshot

_FOLDER = Path(__file__).parent / "web"
_MOST_FEATURES = 200
_WIDTH, _HEIGHT = 180, 36  # of a small histogram, in pixels


class Pages:
    """Renders the templates in `web/`. Names come from outside, so everything is escaped."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"number": _number, "time": _time, "bars": bars, "duration": _duration}
        self._templates.globals |= {
            "version": __version__,
            "share": _share,
            "labels": LABELS,
            "width": _WIDTH,
            "height": _HEIGHT,
        }
        self.style = (_FOLDER / "style.css").read_bytes()

    def index(self, snapshot: Snapshot, config: Config, status: dict[str, Any]) -> bytes:
        """The list of monitors."""
        next_runs = {
            name: datetime.fromisoformat(monitor["next_run"])
            for name, monitor in status["monitors"].items()
            if monitor["next_run"]
        }
        return self._render("index.html", snapshot=snapshot, config=config, status=status, next_runs=next_runs)

    def monitor(
        self,
        name: str,
        monitor: Monitor,
        judged: CheckResult | None,
        results: Sequence[tuple[int, CheckResult]],
        episodes: Sequence[Episode],
        reports: set[int],
        retrainings: Sequence[Retraining] = (),
    ) -> bytes:
        """One monitor: its last judged window, its last runs, its episodes, its retrainings."""
        return self._render(
            "monitor.html",
            name=name,
            monitor=monitor,
            judged=judged,
            features=judged.features[:_MOST_FEATURES] if judged else (),
            results=results,
            episodes=episodes,
            reports=reports,
            retrainings=retrainings,
            since=_since(judged, episodes),
        )

    def _render(self, template: str, **values: object) -> bytes:
        return self._templates.get_template(template).render(**values).encode("utf-8", "replace")


def bars(histogram: Histogram) -> list[tuple[str, list[tuple[str, float, float, float, float]]]]:
    """Two rows of bars, reference beside current, scaled to the tallest.

    Returns:
        For each bin its label and (class, x, y, width, height) of its bars, in pixels.
    """
    tallest = max((*histogram.reference, *histogram.current, 1e-9))
    step = _WIDTH / max(1, len(histogram.labels))
    drawn = []
    pairs = zip(histogram.labels, histogram.reference, histogram.current, strict=True)
    for i, (label, reference, current) in enumerate(pairs):
        sides = (("reference", reference, 0.0), ("current", current, 0.45))
        drawn.append(
            (
                f"{label}: reference {reference:.1%}, current {current:.1%}",
                [
                    (
                        side,
                        round((i + shift) * step, 2),
                        round(_HEIGHT * (1 - share / tallest), 2),
                        round(0.45 * step, 2),
                        round(_HEIGHT * share / tallest, 2),
                    )
                    for side, share, shift in sides
                ],
            )
        )
    return drawn


def _since(judged: CheckResult | None, episodes: Sequence[Episode]) -> dict[str, datetime]:
    """Since when each feature to blame drifts: of the drift episode that the window belongs to."""
    if judged is None:
        return {}
    end = judged.window.end
    known = (e for e in episodes if e.lane == "drift" and e.opened <= end and (e.closed is None or e.closed > end))
    found = next(known, None)
    return {} if found is None else found.since


def _share(score: float | None, threshold: float | None) -> str:
    return "\u2013" if score is None or not threshold else f"{score / threshold:.0%}"


def _duration(seconds: int) -> str:
    return format_duration(timedelta(seconds=seconds))


def _number(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _time(value: datetime | None) -> str:
    return "\u2013" if value is None else f"{value:%Y-%m-%d %H:%M}Z"
