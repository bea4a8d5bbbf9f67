"""The Evidently report, with columns nobody would wish for."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.actions.evidently_page import harmless, render
from drift_monitor.actions.process import ProcessError
from drift_monitor.actions.report import ReportRequest, ReportResult, run_report
from drift_monitor.config.models import Monitor
from drift_monitor.core.types import Window
from drift_monitor.service.report_worker import make_report

RNG = np.random.default_rng(5)
ROWS = 3000
HOSTILE = "</script><script>alert(1)</script>"


def sample(shift: float) -> dict[str, object]:
    return {
        "distance": RNG.normal(1000 + 500 * shift, 300, ROWS),
        "carrier": RNG.choice(["UA", "AA", "B6"], ROWS),
        "raining": RNG.random(ROWS) < 0.3 + shift / 10,
        "departure": (1_700_000_000_000_000 + RNG.integers(0, 10**9, ROWS)).astype("datetime64[us]"),
    }


KINDS = {"distance": "numeric", "carrier": "categorical", "raining": "boolean", "departure": "datetime"}


def draw(reference: pa.Table, current: pa.Table, kinds: dict[str, str]):
    return render(reference, current, kinds, title="drift of flights", facts={"window": "a day"})


def test_every_kind_is_drawn() -> None:
    page = draw(pa.table(sample(0)), pa.table(sample(1)), KINDS)
    assert page.omitted == {}
    assert page.notes == {"departure": "shown as days since 2023-11-14 22:13 UTC"}
    for column in KINDS:
        assert f"Drift in column '{column}'" in page.html
    assert "<h1>drift of flights</h1>" in page.html
    assert "<title>drift of flights</title>" in page.html


def test_bad_columns_are_left_out_with_their_reason_and_the_others_stay() -> None:
    reference, current = sample(0), sample(1)
    kinds = dict(KINDS)
    for name, kind, before, now in [
        ("nulls", "numeric", RNG.random(ROWS), pa.nulls(ROWS, pa.float64())),
        ("infinite", "numeric", RNG.random(ROWS), np.full(ROWS, np.inf)),
        ("retyped", "numeric", RNG.random(ROWS), ["about ten"] * ROWS),
        ("nested", "categorical", ["a"] * ROWS, [[1]] * ROWS),
        ("blank", "categorical", ["a"] * ROWS, pa.nulls(ROWS, pa.string())),
    ]:
        reference[name], current[name], kinds[name] = before, now, kind
    reference["dropped"], kinds["dropped"] = RNG.random(ROWS), "numeric"
    current["new"], kinds["new"] = RNG.random(ROWS), "numeric"
    page = draw(pa.table(reference), pa.table(current), kinds)
    assert page.omitted == {
        "nulls": "no usable value in the 3000 live rows",
        "infinite": "no usable value in the 3000 live rows",
        "retyped": "the live column is of type string, which cannot be read as numeric",
        "nested": "the live column is of type list<item: int64>, which cannot be read as categorical",
        "blank": "no usable value in the 3000 live rows",
        "dropped": "not among the live columns",
        "new": "not among the reference columns",
    }
    for column in KINDS:
        assert f"Drift in column '{column}'" in page.html
    assert "<code>retyped</code>: the live column is of type string" in page.html


def test_no_rows_at_all_still_gives_a_page_that_says_so() -> None:
    current = pa.table(sample(1))
    page = draw(pa.table(sample(0)), current.slice(0, 0), KINDS)
    assert set(page.omitted) == set(KINDS)
    assert "no usable value in the 0 live rows" in page.html


def test_hostile_names_and_categories_stay_text() -> None:
    lone = "\udcff"  # a lone surrogate
    columns = {f"a{HOSTILE}": "categorical", "quote\"'`\n": "numeric", "x" * 500: "numeric", "x" * 501: "numeric"}
    table = pa.table(
        {
            f"a{HOSTILE}": RNG.choice([HOSTILE, "<img src=x onerror=alert(2)>", 'c"', "", "\u2028"], ROWS),
            "quote\"'`\n": RNG.random(ROWS),
            "x" * 500: RNG.random(ROWS),
            "x" * 501: RNG.random(ROWS),
        }
    )
    page = draw(table, table, columns)
    assert page.omitted == {}
    assert "<script>alert" not in page.html
    assert "<img" not in page.html
    assert "\\\\u003c/script\\\\u003e" in page.html
    assert harmless(lone) == "\\udcff"


def test_names_that_become_alike_are_kept_apart() -> None:
    table = pa.table({"a<": RNG.random(ROWS), "a\\u003c": RNG.random(ROWS)})
    page = draw(table, table, dict.fromkeys(table.column_names, "numeric"))
    assert page.omitted == {}
    assert page.html.count("Drift in column 'a") == 2


def test_a_hundred_thousand_categories_are_shown_in_part() -> None:
    many = pa.table({"user": [f"u{i}" for i in range(100_000)], "x": RNG.random(100_000)})
    page = draw(many, many.slice(50_000), {"user": "categorical", "x": "numeric"})
    assert page.omitted == {}
    assert page.notes == {"user": "the 50 most frequent of 100,000 categories are shown, the others together"}
    assert "(99,950 others)" in page.html


def test_a_column_that_evidently_cannot_draw_loses_only_itself() -> None:
    reference, current = sample(0), sample(1)
    reference["extreme"] = current["extreme"] = RNG.choice([-1.7e308, 0, 1.7e308], ROWS)
    page = draw(pa.table(reference), pa.table(current), KINDS | {"extreme": "numeric"})
    assert page.omitted == {"extreme": "Evidently could not draw it"}
    assert "Drift in column 'distance'" in page.html


@pytest.fixture
def request_for(tmp_path: Path):
    """A report request on real files, with a reference built from a training file."""
    rng = np.random.default_rng(1)
    start = np.datetime64("2026-01-01", "us")

    def write(name: str, rows: int, shift: float, **more: object) -> None:
        columns = {
            "at": start + rng.integers(0, 86_400_000_000, rows).astype("timedelta64[us]"),
            "distance": rng.normal(1000 + 300 * shift, 300, rows),
            "carrier": rng.choice(["UA", "AA"], rows),
            "score": rng.random(rows),
            **more,
        }
        pq.write_table(pa.table(columns), tmp_path / name)

    write("training.parquet", 5000, 0)
    write("live.parquet", 3000, 1)

    def build(**report: object) -> ReportRequest:
        monitor = {
            "reference": str(tmp_path / "training.parquet"),
            "source": {"path": str(tmp_path / "live.parquet"), "timestamp": "at"},
            "schedule": {"every": "1h"},
            "columns": {"prediction": "score"},
            "report": report,
        }
        return ReportRequest(
            name="flights",
            monitor=Monitor.model_validate_json(json.dumps(monitor)),
            state=tmp_path / "state",
            window=Window(start=datetime(2026, 1, 1, tzinfo=UTC), end=datetime(2026, 1, 2, tzinfo=UTC)),
            output=tmp_path / "report.html",
            run=7,
            first=("score",),
        )

    build.write = write
    return build


@pytest.mark.slow
def test_a_child_makes_the_report_of_a_window(request_for, tmp_path: Path) -> None:
    request = request_for(rows=1000)
    result = run_report(request, timedelta(seconds=120))
    assert result == ReportResult(path=tmp_path / "report.html")
    html = result.path.read_text()
    assert "Drift of flights" in html
    assert "a sample of 1,000 live rows and of 1,000 training rows" in html
    order = [html.index(f"Drift in column '{name}'") for name in ("score", "distance", "carrier")]
    assert order == sorted(order)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "live.parquet",
        "report.html",
        "state",
        "training.parquet",
    ]


@pytest.mark.slow
def test_a_dropped_and_a_retyped_column_cost_only_themselves(request_for, tmp_path: Path) -> None:
    request = request_for()
    make_report(request)  # builds the reference
    request_for.write("live.parquet", 3000, 1, distance=["far"] * 3000)
    table = pq.read_table(tmp_path / "live.parquet").drop_columns("score")
    pq.write_table(table, tmp_path / "live.parquet")
    result = run_report(request, timedelta(seconds=120))
    assert result.omitted == {
        "score": "not among the live columns",
        "distance": "the live column is of type string, which cannot be read as numeric",
    }
    assert "Drift in column 'carrier'" in result.path.read_text()


@pytest.mark.slow
def test_a_missing_source_is_told_in_a_sentence_and_leaves_nothing_behind(request_for, tmp_path: Path) -> None:
    request = request_for()
    (tmp_path / "live.parquet").unlink()
    with pytest.raises(ProcessError, match=r"^the report of flights failed: .*live\.parquet"):
        run_report(request, timedelta(seconds=120))
    assert not request.output.exists()


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_told(request_for, tmp_path: Path) -> None:
    request = request_for().model_copy(update={"output": tmp_path / "nowhere" / "report.html"})
    with pytest.raises(ProcessError, match="No such file or directory"):
        run_report(request, timedelta(seconds=120))


def test_a_slow_child_is_killed_with_all_it_started(request_for, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    slow = ("bash", "-c", f"sleep 1000 & echo $$ $! > {pids}; wait")
    with pytest.raises(
        ProcessError, match=r"was not done after 1 s and was stopped: raise monitors\.flights\.report"
    ):
        run_report(request_for(), timedelta(seconds=1), command=slow)
    for pid in map(int, pids.read_text().split()):
        give_up = time.monotonic() + 10
        with suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < give_up
                time.sleep(0.05)


def test_a_child_that_dies_is_told() -> None:
    with pytest.raises(ProcessError, match="the report of flights failed: it ended with code -9"):
        run_report(
            ReportRequest.model_construct(name="flights"),
            timedelta(seconds=10),
            command=("bash", "-c", "cat > /dev/null; kill -9 $$"),
        )
