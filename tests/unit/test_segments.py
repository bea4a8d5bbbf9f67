"""Segments, from the configuration to the verdict, on small data with known answers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from drift_monitor.cli import command as drift_monitor
from drift_monitor.cli.explain import explain_monitor
from drift_monitor.config.daemon import FeatureDetail, Metrics
from drift_monitor.config.file import parse
from drift_monitor.config.models import Columns, Monitor
from drift_monitor.core.errors import BadReferenceError, ConfigError
from drift_monitor.core.profile import columns_read, whole_columns
from drift_monitor.core.types import CheckResult, FailureReason, Outcome, Segment, Window, segment_feature
from drift_monitor.reference import Reference, build_reference, open_reference
from drift_monitor.reference import segments as module
from drift_monitor.service.backtest import Replay, backtest
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.feature_series import FeatureSeries, all_of
from drift_monitor.service.references import watched_specs

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS, PER_DAY = 40, 800
LIVE = Window(start=START + DAYS * DAY, end=START + (DAYS + 1) * DAY)
CARRIERS = {"UA": 0.5, "AA": 0.3, "DL": 0.17, "HA": 0.03}


def rows(days: int, seed: int, start: datetime = START) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * PER_DAY
    return pa.table(
        {
            "time": pa.array([start + DAY * (i / PER_DAY) for i in range(n)], pa.timestamp("us", "UTC")),
            "speed": rng.normal(100, 10, n),
            "load": rng.gamma(2, 1, n),
            "carrier": rng.choice(list(CARRIERS), n, p=list(CARRIERS.values())),
            "late": rng.random(n) < 0.3,
        }
    )


def changed(table: pa.Table, carrier: str, column: str, change: Any) -> pa.Table:
    """With another column: `change` takes its values, and whether a row is of the carrier."""
    mine = np.array(table["carrier"].to_pylist()) == carrier
    values = pa.array(change(table[column].to_numpy().copy(), mine))
    return table.set_column(table.schema.get_field_index(column), column, values)


def shifted(table: pa.Table, carrier: str, by: float) -> pa.Table:
    return changed(table, carrier, "speed", lambda x, mine: x + by * mine)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training data; what is built of it is kept for all tests beside it."""
    folder = tmp_path_factory.mktemp("segments")
    pq.write_table(rows(DAYS, seed=1), folder / "training.parquet")
    return folder


def monitor(training: Path, live: Path, **settings: Any) -> Monitor:
    raw: dict[str, Any] = {
        "reference": str(training / "training.parquet"),
        "source": {"path": str(live / "*"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "window": {"bucket": "6h"},
        "alarm": {"multivariate": []},
        "segments": ["carrier"],
    }
    for section, values in settings.items():
        raw[section] = raw.get(section, {}) | values if isinstance(values, dict) else values
    return Monitor.model_validate_json(json.dumps(raw))


def check(training: Path, live: Path, table: pa.Table, **settings: Any) -> CheckResult:
    live.mkdir(exist_ok=True)
    pq.write_table(table, live / "a.parquet", row_group_size=333)
    request = CheckRequest(name="m", monitor=monitor(training, live, **settings), state=training, window=LIVE)
    return evaluate(request).model_copy(update={"seconds": {}})


def named(result: CheckResult, name: str) -> Any:
    return next(f for f in result.features if f.name == name)


QUIET = rows(1, seed=2, start=LIVE.start)


# -- the verdict -----------------------------------------------------------------------------------------


def test_a_drift_in_one_segment_is_found_that_the_whole_does_not_show(training: Path, tmp_path: Path) -> None:
    drifting = shifted(QUIET, "DL", 6)
    whole = check(training, tmp_path / "whole", drifting, segments=[])
    assert (whole.verdict, whole.drifted) == (Outcome.OK, ())
    result = check(training, tmp_path / "live", drifting)
    assert result.verdict is Outcome.DRIFT
    [found] = result.drifted
    assert (found.name, found.column) == ("speed where carrier = DL", "speed")
    assert found.segment == Segment(column="carrier", value="DL")
    assert found.effect is not None
    assert "drifted; first speed where carrier = DL" in result.reason
    assert named(result, "speed").segment is None
    assert (result.score, result.threshold) == (found.score, found.threshold)
    assert CheckResult.model_validate_json(result.model_dump_json()) == result


def test_a_quiet_day_is_ok_and_has_a_result_for_each_feature_and_segment(training: Path, tmp_path: Path) -> None:
    result = check(training, tmp_path / "live", QUIET)
    assert result.verdict is Outcome.OK
    columns = {"speed", "load", "carrier", "late"}
    sliced = {f"{c} where carrier = {v}" for c in columns - {"carrier"} for v in ("UA", "AA", "DL")}
    assert {f.name for f in result.features} == columns | sliced
    assert result.quality[0].message == "all 4 columns are there, with types that fit"


@pytest.mark.parametrize("kept", [True, False])
def test_kept_buckets_and_text_files_give_the_same_result(training: Path, tmp_path: Path, *, kept: bool) -> None:
    drifting = shifted(QUIET, "DL", 6)
    expected = check(training, tmp_path / "live", drifting, window={"incremental": not kept})
    other = check(training, tmp_path / "live", drifting, window={"incremental": kept})
    told = {"read_from": None}
    assert other.model_copy(update=told) == expected.model_copy(update=told)
    (tmp_path / "text").mkdir()
    pacsv.write_csv(drifting, tmp_path / "text" / "a.csv")
    settings = monitor(training, tmp_path / "text", window={"incremental": kept})
    found = evaluate(CheckRequest(name="m", monitor=settings, state=training, window=LIVE))
    assert found.features == expected.features


def test_a_replay_of_the_log_judges_as_the_check_does(training: Path, tmp_path: Path) -> None:
    expected = check(training, tmp_path / "live", shifted(QUIET, "DL", 6))
    settings = monitor(training, tmp_path / "live")
    replay = Replay("m", settings, training, LIVE.start, LIVE.end, rivals=False)
    [(found, _)] = replay.judged()
    assert (found.verdict, found.score, found.drifted[0].name) == (
        expected.verdict,
        expected.score,
        "speed where carrier = DL",
    )


def test_a_segment_without_rows_is_not_judged_and_is_no_missing_column(training: Path, tmp_path: Path) -> None:
    renamed = ["UA" if c == "DL" else c for c in QUIET["carrier"].to_pylist()]
    at = QUIET.schema.get_field_index("carrier")
    result = check(training, tmp_path / "live", QUIET.set_column(at, "carrier", pa.array(renamed)))
    gone = named(result, "speed where carrier = DL")
    assert (gone.score, gone.null_ratio) == (None, None)
    assert gone.reason == "not judged: the window has no row of the segment"
    assert not [q for q in result.quality if q.feature == gone.name]
    assert not [q for q in result.failed_quality if q.check == "schema"]
    assert named(result, "carrier").drifted  # its share is watched as the column it is a value of


def test_the_quality_of_few_rows_of_a_segment_is_not_judged(training: Path, tmp_path: Path) -> None:
    dl = np.flatnonzero(np.array(QUIET["carrier"].to_pylist()) == "DL")
    few = QUIET.take(pa.array(np.setdiff1d(np.arange(len(QUIET)), dl[4:])))
    empty = changed(few, "DL", "speed", lambda x, mine: np.where(mine, np.nan, x))
    result = check(training, tmp_path / "live", empty)
    name = "speed where carrier = DL"
    assert named(result, name).reason == "not judged: only 0 of 4 rows have a value, 100 are needed"
    assert not [q for q in result.quality if q.feature == name]


def test_the_feed_of_one_segment_breaks_by_itself(training: Path, tmp_path: Path) -> None:
    result = check(
        training,
        tmp_path / "live",
        changed(QUIET, "DL", "speed", lambda x, mine: np.where(mine & (np.arange(len(x)) % 9 == 0), np.nan, x)),
    )
    assert result.verdict is Outcome.BROKEN
    assert {q.feature for q in result.failed_quality} >= {"speed where carrier = DL"}
    assert result.reason.startswith("speed where carrier = DL: ") or "speed: " in result.reason


@pytest.mark.parametrize("column", ["carrier", "speed"])
def test_a_missing_column_is_said_once(training: Path, tmp_path: Path, column: str) -> None:
    result = check(training, tmp_path / "live", QUIET.drop_columns([column]))
    assert [q.feature for q in result.failed_quality] == [column]
    lost = {f.name for f in result.features if f.reason == "not judged: the column is missing or cannot be read"}
    assert lost == {n for n in (f.name for f in result.features) if column in n}


def test_data_without_times_have_segments_too(training: Path, tmp_path: Path) -> None:
    settings = {"source": {"path": str(tmp_path / "live" / "*")}, "columns": {"ignore": ["time"]}}
    (tmp_path / "live").mkdir()
    pq.write_table(shifted(QUIET, "DL", 6), tmp_path / "live" / "a.parquet")
    raw = json.loads(monitor(training, tmp_path / "live", **settings).model_dump_json())
    raw["source"]["timestamp"] = None
    request = CheckRequest(
        name="timeless", monitor=Monitor.model_validate_json(json.dumps(raw)), state=tmp_path, window=None
    )
    result = evaluate(request)
    assert result.promise_basis == "independent_rows"
    assert [f.name for f in result.drifted] == ["speed where carrier = DL"]


# -- the promise -----------------------------------------------------------------------------------------


def test_the_promise_holds_for_all_segments_together_and_a_small_one_is_still_found(tmp_path: Path) -> None:
    """Nothing drifts in 60 days after twelve weeks: 2 alerts are promised, of which 7 come once in 200 times.

    Then one number of a carrier with 17% of the rows moves by 0.7 standard deviations.
    """
    weeks, days = 12, 60
    pq.write_table(rows(7 * weeks, seed=5), tmp_path / "training.parquet")
    start = START + 7 * weeks * DAY
    live = rows(days, seed=6, start=start)
    alerts: dict[str, int] = {}
    found: dict[str, int] = {}
    for name, table in (("quiet", live), ("drifting", shifted(live, "DL", 7))):
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "a.parquet")
        for segments in ([], ["carrier"]):
            settings = monitor(tmp_path, tmp_path / name, segments=segments, window={"bucket": "1d"})
            told = backtest("m", settings, tmp_path, start, start + days * DAY, rivals=False)
            assert told.promise_basis == "calibrated"
            alerts[f"{name} {len(segments)}"] = len(told.episodes)
            found[f"{name} {len(segments)}"] = told.windows.get("drift", 0)
    assert alerts["quiet 1"] < 7
    assert found["quiet 1"] < days / 10
    assert found["drifting 0"] < days / 2 < 0.9 * days < found["drifting 1"]


# -- series ----------------------------------------------------------------------------------------------


def test_series_carry_the_segment_and_keep_to_the_budget(training: Path, tmp_path: Path) -> None:
    result = check(training, tmp_path / "live", shifted(QUIET, "DL", 6))
    series = all_of("m", result)
    labels = dict(series["feature_drift_detected"])
    assert labels["m", "speed where carrier = DL", "carrier = DL"] == 1
    assert labels["m", "speed", ""] == 0
    detail: tuple[FeatureDetail, ...] = ("quality",)
    metrics = Metrics(features="all", detail=detail, max_series=10)
    found = FeatureSeries(lambda _run: None).within(metrics, {"m": result}, {})
    told = sum(map(len, found.series.values()))
    assert told <= 10
    assert ("m", "speed where carrier = DL", "carrier = DL") in dict(found.series["feature_drift_detected"])
    whole = FeatureSeries(lambda _run: None).within(
        metrics.model_copy(update={"max_series": 10**6}), {"m": result}, {}
    )
    assert sum(map(len, whole.series.values())) == told + found.cut


# -- references ------------------------------------------------------------------------------------------


def build(table: pa.Table, folder: Path, segments: Any, **columns: Any) -> Reference:
    pq.write_table(table, folder / "t.parquet")
    return build_reference(
        folder / "t.parquet",
        folder / "reference",
        columns=Columns.model_validate(columns),
        timestamp="time",
        bucket=DAY,
        segments=segments,
        created=START,
    )


def test_a_version_says_which_segments_it_has_and_which_were_left_out(tmp_path: Path) -> None:
    table = rows(DAYS, seed=1)
    built = build(table, tmp_path, {"carrier": None})
    counts = {v: table["carrier"].to_pylist().count(v) for v in CARRIERS}
    assert counts["HA"] < module.LEAST_ROWS
    [told] = built.manifest.segments
    assert (told.column, told.frequent) == ("carrier", True)
    assert told.rows == {v: counts[v] for v in ("UA", "AA", "DL")}
    assert [w for w in built.manifest.warnings if "'HA' is left out" in w]
    again = open_reference(built.folder)
    assert [s.name for s in again.specs] == [s.name for s in built.specs]
    assert [(s.column, s.segment) for s in again.specs] == [(s.column, s.segment) for s in built.specs]
    for spec in again.specs:
        profile = again.profile.features[spec.name]
        assert profile.rows == (len(table) if spec.segment is None else counts[spec.segment.value])
    assert [f.name for f in built.manifest.features] == [s.name for s in whole_columns(built.specs)]
    assert columns_read(built.specs) == [f.name for f in built.manifest.features]


def test_without_segments_a_version_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    built = build(rows(3, seed=1), tmp_path, {})
    raw = json.loads((built.folder / "manifest.json").read_text())
    assert "segments" not in raw
    names = pq.read_schema(built.folder / "cells.parquet").names
    assert names == ["name", "kind", "role", "edges", "origin", "unit", "exact", "categories", "complete"]


def test_a_column_that_is_called_like_a_segments_feature_is_kept_apart(tmp_path: Path) -> None:
    table = rows(5, seed=1)
    hostile = segment_feature("speed", Segment(column="late", value="true"))
    table = table.append_column(hostile, pa.array(np.arange(len(table)) % 7 + 0.5))
    built = build(table, tmp_path, {"late": ("true",)})
    names = [s.name for s in built.specs]
    assert len(set(names)) == len(names)
    by_name = {s.name: s for s in built.specs}
    assert by_name[hostile].segment is None
    assert by_name[f"{hostile}~"].segment == Segment(column="late", value="true")
    assert by_name[f"{hostile}~"].column == "speed"
    assert by_name[segment_feature(hostile, Segment(column="late", value="true"))].column == hostile


@pytest.mark.parametrize(
    ("segments", "columns", "message"),
    [
        ({"carier": None}, {}, "'carier' is no column of the training data; did you mean 'carrier'?"),
        ({"speed": None}, {}, "'speed' is numeric, and segments are values of a categorical column"),
        ({"carrier": None}, {"ignore": ("carrier",)}, "'carrier' is not watched, but the share of each segment"),
        ({"carrier": ("UAA",)}, {}, "carrier = UAA has no training rows; did you mean 'UA'?"),
        ({"carrier": ("HA",)}, {}, "carrier = HA has 106 training rows, 1,000 are needed: take it out"),
        ({"late": None, "carrier": ("DL", "AA")}, {}, "carrier = DL has 664 training rows"),
    ],
)
def test_segments_that_cannot_be_had_are_told(tmp_path: Path, segments: Any, columns: Any, message: str) -> None:
    with pytest.raises(BadReferenceError) as error:
        build(rows(5, seed=1), tmp_path, segments, **columns)
    assert message in str(error.value)


def test_more_features_than_there_is_room_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FEATURES", 4)
    with pytest.raises(BadReferenceError, match="2 segments of 4 columns make 6 features, 4 are the most"):
        build(rows(5, seed=1), tmp_path, {"late": None})


def counted(**rows_of: int) -> pa.Table:
    """Rows of a categorical column, so many of each value."""
    names = [name for name, count in rows_of.items() for _ in range(count)]
    times = pa.array([START + DAY * (i / len(names)) for i in range(len(names))], pa.timestamp("us", "UTC"))
    return pa.table({"time": times, "kind": names, "x": np.arange(len(names)) % 7 / 7})


def test_a_segment_needs_a_thousand_rows_and_not_one_more(tmp_path: Path) -> None:
    table = counted(a=1000, b=999, c=1001)
    assert build(table, tmp_path, {"kind": None}).manifest.segments[0].rows == {"c": 1001, "a": 1000}
    assert build(table, tmp_path, {"kind": ("a",)}).manifest.segments[0].rows == {"a": 1000}
    with pytest.raises(BadReferenceError, match=r"kind = b has 999 training rows, 1,000 are needed"):
        build(table, tmp_path, {"kind": ("b",)})


def test_of_many_frequent_values_the_twenty_most_frequent_are_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_ROWS", 10)
    built = build(counted(**{f"v{i:02d}": 10 + i for i in range(22)}), tmp_path, {"kind": None})
    assert [*built.manifest.segments[0].rows] == [f"v{i:02d}" for i in range(21, 1, -1)]
    (told,) = (w for w in built.manifest.warnings if w.startswith("segments of 'kind'"))
    assert "'v01', 'v00' are left out: " in told


def test_as_many_features_as_there_is_room_for_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FEATURES", 2)
    built = build(counted(a=1000, b=1000), tmp_path, {"kind": None})
    assert [s.name for s in built.specs if s.segment] == ["x where kind = a", "x where kind = b"]


def test_a_version_of_some_values_is_none_of_the_frequent_ones_or_of_others(tmp_path: Path) -> None:
    manifest = build(counted(a=1000, b=1000), tmp_path, {"kind": ("a",)}).manifest
    module.refuse_unbuilt({"kind": ("a",)}, manifest)
    for asked in (None, ("b",), ("a", "b")):
        with pytest.raises(BadReferenceError, match="was built without the segments of 'kind'"):
            module.refuse_unbuilt({"kind": asked}, manifest)


def test_a_change_of_segments_builds_the_reference_anew(training: Path, tmp_path: Path) -> None:
    one = check(training, tmp_path / "live", QUIET, segments=[{"carrier": ["UA", "DL"]}])
    two = check(training, tmp_path / "live", QUIET, segments=[{"carrier": ["UA", "DL"]}, "late"])
    assert one.reference is not None
    assert two.reference is not None
    assert one.reference.sha256 != two.reference.sha256
    assert len(two.features) == len(one.features) + 2 * 3
    assert check(training, tmp_path / "live", QUIET, segments=[{"carrier": ["UA", "DL"]}]) == one


def test_a_reference_folder_has_to_have_the_segments(training: Path, tmp_path: Path) -> None:
    built = build(rows(DAYS, seed=1), tmp_path, {"carrier": None})
    settings = {"reference": str(built.folder.parent), "window": {"bucket": "1d"}}
    (tmp_path / "live").mkdir()
    fitting = monitor(training, tmp_path / "live", segments=[{"carrier": ["UA"]}], **settings)
    assert {s.segment.value for s in watched_specs(fitting, built) if s.segment} == {"UA"}
    result = check(training, tmp_path / "live", QUIET, segments=["late"], **settings)
    assert (result.verdict, result.failure) == (Outcome.CANNOT_JUDGE, FailureReason.REFERENCE)
    assert "was built without the segments of 'late'" in result.reason


# -- configuration ---------------------------------------------------------------------------------------

CONFIG = """\
monitors:
  m:
    reference: a.parquet
    source: {{path: "b/*.parquet", timestamp: t}}
    schedule: {{every: 1h}}
    columns: {{ignore: [tail], kinds: {{year: numeric}}}}
    segments: {segments}
"""


def test_values_may_be_written_as_they_are_in_the_data() -> None:
    text = CONFIG.format(segments="[carrier, {region: [eu, no, 7, true]}]")
    found = parse(text, Path("m.yaml")).monitors["m"]
    assert found.segmented == {"carrier": None, "region": ("eu", "no", "7", "true")}
    assert Monitor.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ("carrier", "m.yaml:7:15: monitors.m.segments: must be a list, such as [a, b] (got 'carrier')"),
        ("[3]", "m.yaml:7:16: monitors.m.segments[0]: must be text: put it in quotes (got 3)"),
        ("[{r: eu}]", "m.yaml:7:20: monitors.m.segments[0].r: must be a list, such as [a, b] (got 'eu')"),
        ("[{r: [1.5]}]", "m.yaml:7:21: monitors.m.segments[0].r[0]: must be text: put it in quotes (got 1.5)"),
        ("[{r: []}]", "m.yaml:7:20: monitors.m.segments[0].r: must not be empty (got a list of 0 items)"),
        (
            "[{r: [" + ", ".join(f"v{i}" for i in range(21)) + "]}]",
            "m.yaml:7:20: monitors.m.segments[0].r: must have 20 items at most (got a list of 21 items)",
        ),
        ("[r, {r: [a]}]", "m.yaml:7:15: monitors.m.segments: names 'r' or one of its values twice"),
        ("[{}]", "m.yaml:7:15: monitors.m.segments: has an item that names no column"),
        ('[""]', "m.yaml:7:15: monitors.m.segments: has an item that names no column"),
        ("[tail]", "monitors.m: segments has 'tail', which is not watched (see columns)"),
        ("[t]", "monitors.m: segments has 't', which is not watched (see columns)"),
        ("[year]", "monitors.m: segments has 'year', which columns.kinds says is numeric"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_told_with_its_place(segments: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(CONFIG.format(segments=segments), Path("m.yaml"))
    assert message in str(error.value)


# -- the page --------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "segments.md").read_text()


def flights(days: int, seed: int, start: datetime) -> pa.Table:
    table = rows(days, seed, start)
    regions = np.random.default_rng(seed).choice(["eu", "us", "asia"], len(table))
    return table.rename_columns(["scheduled_departure", "dep_delay", *table.column_names[2:]]).append_column(
        "region", pa.array(regions)
    )


def test_the_configuration_of_the_page_runs_and_its_table_names_the_segment(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "monitor.yaml").write_text(text)
    pq.write_table(flights(20, 1, START), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    live = flights(1, 2, START + 20 * DAY)
    dep_delay = live["dep_delay"].to_numpy() + 20 * (np.array(live["carrier"].to_pylist()) == "UA")
    pq.write_table(live.set_column(1, "dep_delay", pa.array(dep_delay)), tmp_path / "live" / "a.parquet")
    command = ["check", "flight-delay", "--config", str(tmp_path / "monitor.yaml"), "--window"]
    window = f"{START + 20 * DAY:%Y-%m-%d}/{START + 21 * DAY:%Y-%m-%d}"
    done = CliRunner().invoke(drift_monitor, [*command, window], env={"COLUMNS": "150"})
    assert done.exit_code == 0, done.output
    assert re.search(r"^dep_delay where carrier = UA +drift ", done.output, re.MULTILINE)
    told = json.loads(CliRunner().invoke(drift_monitor, [*command, window, "--json"]).stdout)
    first = next(f for f in told["features"] if f["name"] == "dep_delay where carrier = UA")
    assert (first["column"], first["segment"]) == ("dep_delay", {"column": "carrier", "value": "UA"})
    assert {f["segment"]["value"] for f in told["features"] if f["segment"]} == {"UA", "AA", "DL", "eu", "us"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "segments: [carier]",
            "monitors.m.segments: 'carier' is no column of the training data; did you mean 'carrier'?",
        ),
        ("segments: [speed]", "monitors.m.segments: 'speed' is numeric, and segments are values of a categorical"),
    ],
)
def test_check_config_says_which_column_has_no_segments(
    training: Path, tmp_path: Path, line: str, message: str
) -> None:
    text = f"""\
monitors:
  m:
    reference: {training / "training.parquet"}
    source: {{path: "{training}/*.parquet", timestamp: time}}
    schedule: {{every: 1d}}
    {line}
"""
    (tmp_path / "monitor.yaml").write_text(text)
    done = CliRunner().invoke(drift_monitor, ["check-config", "--config", str(tmp_path / "monitor.yaml")])
    assert message in " ".join(done.output.split())


def test_a_misspelt_value_is_found_by_explain(training: Path, tmp_path: Path) -> None:
    text = f"""\
monitors:
  m:
    reference: {training / "training.parquet"}
    source: {{path: "{training}/*.parquet", timestamp: time}}
    schedule: {{every: 1d}}
    segments: [{{carrier: [UX]}}]
"""
    (tmp_path / "monitor.yaml").write_text(text)
    command = ["check-config", "--config", str(tmp_path / "monitor.yaml")]
    assert "UX" not in CliRunner().invoke(drift_monitor, command).output  # the rows are not looked at
    done = CliRunner().invoke(drift_monitor, [*command, "--explain"])
    assert "carrier = UX has no training rows" in str(done.exception)


def test_explain_names_the_segments_that_are_too_small_for_a_window(training: Path, tmp_path: Path) -> None:
    few = monitor(training, tmp_path, segments=["carrier"], alarm={"min_rows": 200})
    told = explain_monitor("m", few, LIVE.end, tmp_path / "state")
    (small,) = (line for line in told.warnings if line.startswith("segment "))
    name, _, rest = small.partition(": a usual window has about ")
    assert name == "segment carrier = DL"
    assert float(rest.split()[0]) == pytest.approx(CARRIERS["DL"] * PER_DAY, rel=0.05)
    assert "fewer than 200 are not judged: make window.length longer or alarm.min_rows smaller" in rest
