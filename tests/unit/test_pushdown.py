"""A database that counts by itself: what may be asked of it, the SQL of each dialect, and a whole check."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot

from drift_monitor.config.file import examine, parse
from drift_monitor.config.tables import SqlSource
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.folding import Folding
from drift_monitor.core.packed import Layout
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Spec
from drift_monitor.core.types import CheckResult, Window
from drift_monitor.service.backtest import Replay
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.sources import extras
from drift_monitor.sources.pushdown import PushedSql, Statements, _Rows

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ['a"b', "drop", "x.y; --", "it's"]
TEXT = 'text "of" y.z'
CATEGORY = "O'Hare \\' OR 1=1 --"
HEAD = """monitors:
  m:
    reference: training.parquet
    source: {{type: sql, uri: "duckdb://log.duckdb", table: rows, timestamp: at{source}}}
    schedule: {{every: 1d}}
    window: {{length: 1d}}
{more}"""
PUSHED = ", pushdown: duckdb"
LEFT_OUT = "    alarm: {multivariate: []}\n    report: {enabled: false}\n"
LABELS = """    columns: {id: id, label: fare}
    labels:
      horizon: 1d
      source: {type: sql, uri: "duckdb://x", table: t, timestamp: at, pushdown: duckdb}
"""
EDGES = "    columns: {edges: 20}\n"


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        (PUSHED, LEFT_OUT, r"`pushdown` needs `columns: \{edges: 20\}` \(they are 1000\)"),
        (PUSHED, EDGES, r"so this needs alarm.multivariate: \[\], report: \{enabled: false\}$"),
        (PUSHED, EDGES + LEFT_OUT + "    segments: [carrier]\n", "so this needs no segments$"),
        (PUSHED, EDGES + LEFT_OUT + "    quality: {duplicates: 0.1}\n", "so this needs no quality.duplicates$"),
        (PUSHED, EDGES + LEFT_OUT + "    reweight: {enabled: true}\n", "so this needs no reweight$"),
        (", pushdown: postgres", "", r"is not what this uri's database speaks \(duckdb\)"),
        (", pushdown: sybase", "", "m.source.pushdown: must be one of postgres, duckdb, snowflake, bigq"),
        (
            "",
            LABELS,
            "labels.source is joined row by row: take `pushdown` away",
        ),
        (PUSHED + ", lateness: 1h", "", "leave out `lateness` and `sample`"),
        (PUSHED + ", timezone: Europe/Berlin", "", "takes times without a zone for UTC"),
    ],
)  # fmt: skip
def test_what_a_database_cannot_count_is_refused_with_its_place(source: str, more: str, message: str) -> None:
    config, _, found = examine(HEAD.format(source=source, more=more), Path("/etc/c.yaml"))
    assert config is None
    assert re.search(message, found[0].message if "must be" not in message else str(found[0])), found
    assert re.match(r"/etc/c\.yaml:\d+:\d+: monitors\.m", str(found[0]))


def written(dialect: str) -> dict[str, str]:
    """The statements over hostile names, by what they are about."""
    stored = pa.schema(
        [pa.field("at", pa.timestamp("us", "UTC")), *(pa.field(name, pa.float64()) for name in NAMES)]
    )
    config = SqlSource.model_validate(
        {"type": "sql", "uri": "u", "driver": "d", "table": '"my ""own"".table"."drop"', "pushdown": dialect}
    )
    window = Window(start=START, end=START + timedelta(days=1))
    day = int(START.timestamp()) * 10**6
    rows = _Rows(Statements(dialect), config, stored, window, [day, day + 10**10], "rows")
    found = {
        name: rows.feature(NumericSpec.fit(name, np.array([0.1, 2.0, 1e300]), edges=20), "at") for name in NAMES
    }
    stored_texts = pa.schema([pa.field("at", pa.timestamp("us")), pa.field(TEXT, pa.string())])
    texts = _Rows(Statements(dialect), config, stored_texts, window, [day], "rows")
    found[TEXT] = texts.feature(CategoricalSpec(TEXT, (CATEGORY, "b")), "at")
    return found | {"whole": rows.whole("at")}


@pytest.mark.parametrize("dialect", ["postgres", "duckdb", "snowflake", "bigquery", "trino"])
def test_every_dialect_has_statements_that_quote_names_and_values(dialect: str) -> None:
    for name, text in written(dialect).items():
        (tree,) = sqlglot.parse(text, read=dialect)
        assert isinstance(tree, sqlglot.exp.Select)
        tables = {table.name for table in tree.find_all(sqlglot.exp.Table)}
        assert tables == {"drop", "drift_monitor_rows"}
        quoted = f"`{name}`" if dialect == "bigquery" else '"' + name.replace('"', '""') + '"'
        assert name == "whole" or f"(SELECT CAST({quoted} AS " in text
        assert name == "drop" or text.count(quoted[1:-1]) == (name != "whole")
        assert all(each.this.quoted for each in tree.find_all(sqlglot.exp.Column))
        strings = {each.this for each in tree.find_all(sqlglot.exp.Literal) if each.is_string}
        assert name != TEXT or {CATEGORY, "b"} <= strings


def test_a_name_that_bigquery_does_not_have_is_not_written() -> None:
    for name in ("a`b", "a\\"):
        with pytest.raises(SchemaError, match="BigQuery has no name such as"):
            Statements("bigquery").quoted(name)


def test_duckdb_runs_the_statements_over_hostile_names() -> None:
    with closing(duckdb.connect()) as connection:
        connection.execute("ATTACH ':memory:' AS other")
        connection.execute('CREATE SCHEMA "my ""own"".table"')
        listed = ", ".join('"' + name.replace('"', '""') + '" DOUBLE' for name in NAMES)
        connection.execute(
            f'CREATE TABLE "my ""own"".table"."drop" ("at" TIMESTAMPTZ, {listed}, "text ""of"" y.z" TEXT)'
        )
        connection.execute(
            'INSERT INTO "my ""own"".table"."drop" VALUES (\'2024-01-01T01:00Z\', 2, 2, 2, 2, ?)', [CATEGORY]
        )
        found = {name: connection.execute(text).fetchall() for name, text in written("duckdb").items()}
    assert [found[name][0][:3] for name in NAMES] == [(0, 3, 1)] * len(NAMES)  # stretch, cell, rows
    assert found[TEXT] == [(0, CATEGORY, 1, "1")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty days of training rows, and two days of live ones: the same, and with a fare that moved."""
    home, rng = tmp_path_factory.mktemp("pushed"), np.random.default_rng(4)

    def rows(days: int, start: datetime, shift: float) -> pa.Table:
        n = days * 24 * 20
        moments = [start + timedelta(minutes=3 * k) for k in range(n)]
        return pa.table(
            {
                "at": pa.array(moments, pa.timestamp("us", "UTC")),
                "id": pa.array(range(n)),
                "fare": rng.gamma(3, 5, n) + shift,
                "distance": np.round(rng.gamma(2, 300, n)),
                "carrier": rng.choice(["AA", "B6", "UA"], n),
            }
        )

    pq.write_table(rows(50, START, 0), home / "training.parquet")
    live = pa.concat_tables([rows(1, START + timedelta(days=50), 0), rows(1, START + timedelta(days=51), 12)])
    with closing(duckdb.connect(home / "log.duckdb")) as connection:
        connection.register("given", live)
        connection.execute("CREATE TABLE rows AS SELECT * FROM given")
    return home


def checked(folder: Path, day: int, *, source: str = "", more: str = EDGES + LEFT_OUT) -> CheckResult:
    text = HEAD.format(source=source, more=more)
    monitor = parse(text, folder / "c.yaml").monitors["m"]
    start = START + timedelta(days=day)
    window = Window(start=start, end=start + timedelta(days=1))
    return evaluate(CheckRequest(name="m", monitor=monitor, state=folder / "state", window=window))


def test_a_check_says_what_it_says_when_rows_are_read(folder: Path) -> None:
    said = []
    for day in (50, 51):
        with_rows, counted = (checked(folder, day, source=source) for source in ("", PUSHED))
        apart = {"seconds", "versions"}
        assert counted.model_dump(exclude=apart) == with_rows.model_dump(exclude=apart)
        said.append(str(counted.verdict))
        assert counted.rows == 480
    assert said == ["ok", "drift"]


def test_a_backtest_between_dates_judges_what_it_judges_when_rows_are_read(folder: Path) -> None:
    def judged(source: str) -> list[CheckResult]:
        monitor = parse(HEAD.format(source=source, more=EDGES + LEFT_OUT), folder / "m.yaml").monitors["m"]
        span = START + timedelta(days=50), START + timedelta(days=52)
        replay = Replay("m", monitor, folder / "state", *span, rivals=False)
        return [result for result, _ in replay.judged()]

    by_reading = judged("")
    assert [(str(result.verdict), result.rows) for result in by_reading] == [("ok", 480), ("drift", 480)]
    assert judged(PUSHED) == by_reading


def test_what_asks_for_rows_is_told_that_they_stay(folder: Path) -> None:
    evidently = (
        '    alarm: {multivariate: [], methods: {numeric: ["evidently:ks"]}, false_alerts_per_month: null}\n'
    )
    result = checked(folder, 51, source=PUSHED, more=EDGES + evidently + "    report: {enabled: false}\n")
    assert (str(result.verdict), str(result.failure)) == ("cannot_judge", "source")
    assert "its rows do not leave it (`pushdown`)" in result.reason


def pushed(**settings: Any) -> PushedSql:
    base = {"type": "sql", "uri": "duckdb://", "pushdown": "duckdb"}
    return PushedSql(SqlSource.model_validate(base | settings), {})


def folding(*specs: Spec, timestamp: str | None = None) -> Folding:
    columns = tuple(spec.column for spec in specs) + ((timestamp,) if timestamp else ())
    return Folding(Layout(specs, None), columns, timestamp, None)


def test_rows_that_come_and_go_while_they_are_counted_are_not_judged() -> None:
    source = pushed(query="SELECT 1.5 AS x FROM range(10000) WHERE random() < 0.5")
    with pytest.raises(SourceError, match=r"rows came or went while they were counted .* let `window.delay`"):
        source.fold(None, folding(NumericSpec.fit("x", np.array([1.5, 2.5]))))


def test_what_cannot_be_counted_is_named() -> None:
    source = pushed(query="SELECT 1.5 AS x, TIMESTAMP '2024-01-01' AS seen, DATE '2024-01-01' AS day, 'a' AS at")
    seen = NumericSpec.fit("seen", np.array([1.0, 2.0]), kind="datetime")
    with pytest.raises(
        SchemaError, match=r"cannot count 'seen', which is a time: leave it out \(columns.ignore\)"
    ):
        source.fold(None, folding(seen))
    with pytest.raises(SchemaError, match="cannot count 'x', which has 101 edges, and 21 are the most"):
        source.fold(None, folding(NumericSpec.fit("x", np.linspace(0, 1, 1000), edges=100)))
    for name in ("day", "at"):
        with pytest.raises(SchemaError, match=f"`pushdown` needs times, and '{name}' is .*: cast it in a `query`"):
            source.fold(None, folding(NumericSpec.fit("x", np.array([1.5])), timestamp=name))
    with pytest.raises(SchemaError, match="has no column 'y'"):
        source.fold(None, folding(NumericSpec.fit("y", np.array([1.5]))))


def test_rows_without_a_usable_time_are_counted_apart() -> None:
    for kind in ("TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS", "TIMESTAMP_S"):
        times = "'2024-01-01 00:00:01.123456789'"
        source = pushed(query=f"SELECT 1.5 AS x, unnest([{times}]::{kind}[]) AS at", timestamp="at")
        fold = folding(NumericSpec.fit("x", np.array([1.5])), timestamp="at")
        (profile,) = fold.unpacked(source.fold(None, fold)).values()
        second = int(START.timestamp()) * 10**6 + 10**6
        assert profile.oldest == profile.newest == second + (0 if kind == "TIMESTAMP_S" else 123456)
    times = "NULL, '0001-01-01', '2024-01-01', '9999-12-31', 'infinity'"
    source = pushed(query=f"SELECT 1.5 AS x, unnest([{times}]::TIMESTAMP[]) AS at", timestamp="at")
    found = source.fold(None, folding(NumericSpec.fit("x", np.array([1.5])), timestamp="at"))
    assert len(found.parts) == 1
    assert found.lost == ((None, None, 4),)


def test_of_many_new_values_all_are_counted_and_the_most_frequent_are_named() -> None:
    source = pushed(
        query="SELECT CASE WHEN i < 7 THEN 'a' WHEN i >= 9 THEN 'new' || (i // 2) END AS c FROM range(9009) t(i)"
    )
    fold = folding(CategoricalSpec("c", ("a", "gone")))
    profile = fold.unpacked(source.fold(None, fold))[0].features["c"]
    assert (profile.counts.tolist(), profile.nulls, profile.other) == ([7, 0], 2, 9000)
    assert 990 <= len(profile.unseen) <= 1000


def test_a_missing_ibis_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name=name)

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(SourceError, match=r"this monitor needs ibis: pip install 'drift-monitor\[pushdown\]'"):
        Statements("duckdb")
