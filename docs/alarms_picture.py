"""Draw docs/alarms.svg: `python docs/alarms_picture.py`.

The committed reference of flights (January to March 2013) is calibrated without the temperature, which leaves the
reference's range in April; then the two weeks of log after it are replayed, as they were and with distances in km.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from drift_monitor.config.models import Monitor
from drift_monitor.core.types import Outcome
from drift_monitor.reference import open_reference
from drift_monitor.service.backtest import Replay
from drift_monitor.service.calibrations import known_of
from drift_monitor.service.references import watched_specs

DATA = Path(__file__).parent.parent / "reference_data" / "flight-delay"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 860, 300, 46, 40, 34
KM = 1.609344


def monitor(live: str) -> Monitor:
    """Daily windows of New York days."""
    return Monitor.model_validate(
        {
            "reference": DATA,
            "source": {"type": "files", "path": live, "timestamp": "scheduled_departure"},
            "schedule": {"cron": "0 4 * * *"},
            "columns": {
                "prediction": "p_late",
                "label": "is_late",
                "id": "flight_id",
                "ignore": ("weekday", "temp"),
            },
        },
        strict=False,
    )


def days(live: str, state: Path) -> list[tuple[date, float]]:
    """The score of each day."""
    replay = Replay("flights", monitor(live), state, rivals=False)
    return [
        ((r.window.end - timedelta(days=1)).date(), r.score)
        for r, _ in replay.judged()
        if r.score is not None and r.verdict is not Outcome.BROKEN
    ]


def in_km(folder: Path) -> str:
    """The log with distances in km."""
    for file in sorted((DATA / "live").glob("*.parquet")):
        table = pq.read_table(file)
        at = table.schema.get_field_index("distance")
        table = table.set_column(at, "distance", pc.multiply(table["distance"], KM))
        pq.write_table(table, folder / file.name)
    return str(folder / "*.parquet")


def picture() -> str:
    """The SVG."""
    with tempfile.TemporaryDirectory() as temporary:
        state, km = Path(temporary) / "state", Path(temporary) / "km"
        km.mkdir()
        sound, reference = monitor(str(DATA / "live" / "*.parquet")), open_reference(DATA)
        known = known_of("flights", sound, reference, state, watched_specs(sound, reference))
        calibration = known.calibration
        if calibration is None or calibration.drift.value is None:
            sys.exit(f"the reference cannot be calibrated: {known.why_not}")
        past = [
            (datetime.fromisoformat(day).date(), max(0.0, score))
            for day, score in zip(calibration.days, calibration.drift.daily, strict=True)
        ]
        return draw(past, days(sound.source.path, state), days(in_km(km), state), calibration.drift.value)


def draw(
    past: list[tuple[date, float]], live: list[tuple[date, float]], fault: list[tuple[date, float]], limit: float
) -> str:
    """Three runs of bars beside each other, and the threshold."""
    step = (WIDTH - LEFT - 10) / (len(past) + len(live) + len(fault) + 6)
    top = 2.6 * limit
    scale = (HEIGHT - TOP - BOTTOM) / top
    base = HEIGHT - BOTTOM
    font = 'font-family="sans-serif" font-size="12"'
    label = 'role="img" aria-label="Daily scores and the threshold"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {font} {label}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    x = float(LEFT)
    for name, scores, colour in (
        (f"the reference, {len(past)} days replayed", past, "#8a99ad"),
        ("live, as it was", live, "#3b7dd8"),
        ("live, km for miles", fault, "#d1495b"),
    ):
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 14}" fill="#333">{name}</text>')
        for day, score in scores:
            height = max(1.0, min(score, top) * scale)
            over = "" if score <= top else f"<title>{day}: {score:.0f}, cut</title>"
            parts.append(
                f'<rect x="{x:.1f}" y="{base - height:.1f}" width="{step * 0.72:.1f}" height="{height:.1f}" '
                f'fill="{colour}">{over or f"<title>{day}: {score:.1f}</title>"}</rect>'
            )
            x += step
        x += 3 * step
    y = base - limit * scale
    promise = f"threshold {limit:.1f}: at most one false alert a month"
    parts += [
        f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#222" stroke-dasharray="5 4"/>',
        f'<text x="{LEFT + 4}" y="{y - 6:.1f}" fill="#222">{promise}</text>',
        f'<text x="{LEFT}" y="18" fill="#333">score of the day (bars above {top:.0f} are cut)</text>',
        f'<line x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{base}" stroke="#999"/>',
        f'<text x="{LEFT - 8}" y="{base + 4}" text-anchor="end" fill="#333">0</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "alarms.svg").write_text(picture())
