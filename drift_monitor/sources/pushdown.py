"""A database that counts a window by itself: its rows never leave it, only counts and sums do.

One statement counts the rows of each stretch of the window, and one for each feature groups them by cell. Every
number that comes back is the one that reading the rows gives, bit for bit: cells are compared as float64, and
sums are of whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, NoReturn, Protocol, cast

import numpy as np
import pyarrow as pa

from drift_monitor.config.tables import SqlSource, table_parts
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.fold import LIMIT, LONGEST_NAME, category_name, edges_of
from drift_monitor.core.folding import Folded, Folding, Lost
from drift_monitor.core.packed import pack
from drift_monitor.core.profile import (
    UNSEEN_KEPT,
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
    bounded,
)
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.extras import load
from drift_monitor.sources.sql import Sql, SqlSplit
from drift_monitor.sources.table_rows import EARLIEST, LATEST, bounds, check_columns

MOST_EDGES: Final = 21
"""Of a number's cells: a statement has two comparisons for each, and 1,000 of them take a second to write."""
_ROWS: Final = "drift_monitor_rows"
_COMPILERS: Final = {
    "postgres": "PostgresCompiler",
    "duckdb": "DuckDBCompiler",
    "snowflake": "SnowflakeCompiler",
    "bigquery": "BigQueryCompiler",
    "trino": "TrinoCompiler",
}
_NULL, _NAN, _HIGH, _LOW = -1, -2, -3, -4  # cells of what is no finite number
_LARGEST: Final = float(np.finfo(np.float64).max)
_TO_WHOLE: Final = 1.5 * 2**52  # adding and subtracting it rounds half to even, as numpy does
_TINY: Final = 2.0**-100  # of a unit: it changes no rounding
_HALF: Final = 1 << 15  # squares are summed in halves, so that no sum needs more than 64 bits
_EXACT_DIGITS: Final = 15
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
Row = dict[str, Any]


class _Runs(Protocol):
    """A connection that takes a whole statement."""

    def run(self, text: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement's result."""

    def schema(self, relation: str) -> pa.Schema:
        """See `Database`."""


class PushedSql(Sql):
    """Source over a database that counts; it has `fold` and gives no rows.

    Args:
        config: with `pushdown`.
        kinds: of the features.

    Raises:
        SourceError: Ibis is not installed, or see `open_sql`.
    """

    def __init__(self, config: SqlSource, kinds: Mapping[str, Kind]) -> None:
        super().__init__(config, kinds)
        self._statements = Statements(config.pushdown or "")

    def batches(self, split: SqlSplit, columns: Sequence[str]) -> NoReturn:  # noqa: ARG002
        """See `Source`.

        Raises:
            SourceError: always.
        """
        raise SourceError(
            f"{self._where}: its rows do not leave it (`pushdown`), and something asked for rows: leave that out, "
            "or leave out `pushdown`"
        )

    def fold(self, window: Window | None, folding: Folding) -> Folded:
        """Count the rows of a window where they are.

        Raises:
            SchemaError: a column or a feature cannot be counted by a database.
            SourceError: the database says so, or rows came while it counted.
        """
        check_columns(self._stored, folding.columns, self._where)
        if (segment := next((spec.name for spec in folding.layout.specs if spec.segment), None)) is not None:
            raise SchemaError(f"{self._where}: a database counts no segments, and {segment!r} is of one")
        cuts = [0] if folding.starts is None else folding.starts.tolist()
        with self._explained, self._opened() as database:
            rows = _Rows(self._statements, self._config, self._stored, window, cuts, self._where)
            whole = _by_stretch(_run(database, rows.whole(folding.timestamp)))
            lost: tuple[Lost, ...] = ()
            if (text := rows.lost(folding.timestamp)) is not None:
                lost = ((None, None, int(_run(database, text)[0]["n"])),)
            found: dict[int, dict[str, FeatureProfile]] = {i: {} for i in whole}
            for spec in folding.layout.specs if whole else ():
                counted = _by_stretch(_run(database, rows.feature(spec, folding.timestamp)))
                for i, (row,) in whole.items():
                    profile = _profile(spec, counted.get(i, []), self._where)
                    if profile.rows != int(row["n"]) or counted.keys() != whole.keys():
                        raise SourceError(
                            f"{self._where}: rows came or went while they were counted ({row['n']} at first, "
                            f"{profile.rows} for {spec.name!r}): let `window.delay` be so long that a "
                            "window changes no more"
                        )
                    found[i][spec.name] = profile
        parts = []
        for i, (row,) in sorted(whole.items()):
            span = (None, None) if folding.timestamp is None else (_micros(row["oldest"]), _micros(row["newest"]))
            whole_profile = Profile(int(row["n"]), found[i], *span)
            parts.append((cuts[i], pack(whole_profile, folding.layout).to_bytes()))
        return Folded(tuple(parts), lost)

    @cached_property
    def _stored(self) -> pa.Schema:
        """As it was at the first look, which takes no rows."""
        empty = f"(SELECT * FROM {self._statements.relation(self._config)} WHERE 1 = 0) AS {_ROWS}"  # noqa: S608 - of quoted names and of the configuration
        with self._explained, self._opened() as database:
            return database.schema(empty)

    def _opened(self) -> AbstractContextManager[_Runs]:
        return cast("AbstractContextManager[_Runs]", self._connect())


class Statements:
    """SQL of one dialect, written by Ibis.

    Args:
        dialect: a name of `_COMPILERS`.
    """

    def __init__(self, dialect: str) -> None:
        self._name = dialect
        self.ibis = load("ibis", "pushdown")
        self.glot = load("sqlglot", "pushdown")
        self._compiler = getattr(load("ibis.backends.sql.compilers", "pushdown"), _COMPILERS[dialect])()
        self._dialect = self._compiler.dialect

    def relation(self, config: SqlSource) -> str:
        """What to put after FROM."""
        if config.query is not None:
            return f"(\n{config.query.rstrip().rstrip(';')}\n) AS {_ROWS}"  # its last line may be a comment
        return ".".join(self.quoted(part) for part in table_parts(config.table or "") or ())

    def quoted(self, name: str) -> str:
        """An identifier.

        Raises:
            SchemaError: the dialect has no such name.
        """
        if self._name == "bigquery" and not {"`", "\\"}.isdisjoint(name):
            raise SchemaError(f"BigQuery has no name such as {name!r}")
        text: str = self.glot.to_identifier(name, quoted=True).sql(dialect=self._dialect)
        return text

    def cast(self, expression: str, dtype: str) -> str:
        """An expression as another type."""
        name = self.glot.exp.DataType.build(dtype).sql(dialect=self._dialect)
        return f"CAST({expression} AS {name})"

    def text(self, expression: Any, relation: str, columns: Mapping[str, str]) -> str:
        """A statement.

        Args:
            expression: of Ibis, over a table named `_ROWS`.
            relation: what that table is.
            columns: its columns: name -> SQL.
        """
        listed = ", ".join(f"{text} AS {self.quoted(name)}" for name, text in columns.items())
        counted = self._compiler.to_sqlglot(expression).sql(dialect=self._dialect)
        return f"WITH {self.quoted(_ROWS)} AS (SELECT {listed} FROM {relation})\n{counted}"  # noqa: S608 - the same

    def number(self, value: float) -> Any:
        """A float64, from the text that says it exactly: some databases take 0.1 for a decimal."""
        return self.ibis.literal(repr(float(value))).cast("float64")


class _Rows:
    """The statements over the rows of one window."""

    def __init__(
        self,
        statements: Statements,
        config: SqlSource,
        stored: pa.Schema,
        window: Window | None,
        cuts: Sequence[int],
        where: str,
    ) -> None:
        self._sql, self._ibis, self._stored, self._where = statements, statements.ibis, stored, where
        self._relation, self._window, self._cuts = statements.relation(config), window, cuts

    def whole(self, timestamp: str | None) -> str:
        """Rows, oldest and newest of each stretch."""
        table, columns = self._table({}, timestamp)
        found = self._stretches(table, timestamp)
        more = {} if timestamp is None else {"oldest": found.t.min(), "newest": found.t.max()}
        return self._sql.text(found.group_by("stretch").agg(n=found.count(), **more), self._relation, columns)

    def lost(self, timestamp: str | None) -> str | None:
        """How many rows have no usable time; a window leaves them out, and does not count them."""
        if timestamp is None or self._window is not None:
            return None
        table, columns = self._table({}, timestamp)
        low, high = self._span(timestamp)
        lost = table.t.isnull() | (table.t < low) | (table.t >= high)
        return self._sql.text(table.filter(lost).agg(n=lambda t: t.count()), self._relation, columns)

    def feature(self, spec: Spec, timestamp: str | None) -> str:
        """Rows by stretch and cell, or by stretch and category."""
        if isinstance(spec, NumericSpec):
            table, columns = self._table({"x": (self._number(spec), "float64")}, timestamp)
            found = self._numeric(self._stretches(table, timestamp), spec)
        else:
            table, columns = self._table({"x": (self._category(spec), "string")}, timestamp)
            found = self._categorical(self._stretches(table, timestamp), spec)
        return self._sql.text(found, self._relation, columns)

    def _table(self, asked: Mapping[str, tuple[str, str]], timestamp: str | None) -> tuple[Any, dict[str, str]]:
        """The table for Ibis, and its columns as SQL: it never sees the names that they have."""
        columns = {name: text for name, (text, _) in asked.items()}
        types = {name: dtype for name, (_, dtype) in asked.items()}
        if timestamp is None:
            columns["one"], types["one"] = "1", "int64"
        else:
            columns["t"] = self._sql.quoted(timestamp)
            types["t"] = "timestamp" if self._time(timestamp).tz is None else "timestamp('UTC')"
        return self._ibis.table(types, name=_ROWS), columns

    def _time(self, timestamp: str) -> Any:
        dtype = self._stored.field(timestamp).type
        if not pa.types.is_timestamp(dtype):
            raise SchemaError(
                f"{self._where}: `pushdown` needs times, and {timestamp!r} is {dtype}: cast it in a `query`"
            )
        return dtype

    def _moment(self, timestamp: str, moment: datetime) -> Any:
        naive = self._time(timestamp).tz is None
        return self._ibis.literal(moment.astimezone(UTC).replace(tzinfo=None) if naive else moment.astimezone(UTC))

    def _span(self, timestamp: str) -> tuple[Any, Any]:
        low, high = bounds(self._window, self._time(timestamp), "UTC") or (EARLIEST, LATEST)
        low, high = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in (low, high))
        return self._moment(timestamp, low), self._moment(timestamp, high)

    def _stretches(self, table: Any, timestamp: str | None) -> Any:
        """The rows of the window, with the number of the stretch that each lies in."""
        if timestamp is None:
            return table.mutate(stretch=self._ibis.literal(0))
        low, high = self._span(timestamp)
        cuts = [self._moment(timestamp, _EPOCH + cut * _MICROSECOND) for cut in self._cuts[1:]]
        branches = [(table.t < cut, i) for i, cut in enumerate(cuts)]
        stretch = self._ibis.cases(*branches, else_=len(cuts)) if branches else self._ibis.literal(0)
        return table.filter((table.t >= low) & (table.t < high)).mutate(stretch=stretch)

    def _dtype(self, spec: Spec) -> pa.DataType:
        dtype = self._stored.field(spec.column).type
        return dtype.value_type if isinstance(dtype, pa.DictionaryType) else dtype

    def _number(self, spec: NumericSpec) -> str:
        if spec.kind == "datetime" or len(spec.edges) > MOST_EDGES:
            why = (
                "is a time"
                if spec.kind == "datetime"
                else f"has {len(spec.edges)} edges, and {MOST_EDGES} are the most"
            )
            raise SchemaError(
                f"{self._where}: a database cannot count {spec.name!r}, which {why}: leave it out "
                "(columns.ignore), or build the reference with columns.edges: 20"
            )
        name, dtype = self._sql.quoted(spec.column), self._dtype(spec)
        if pa.types.is_boolean(dtype):
            one, zero = (self._sql.cast(digit, "double") for digit in "10")
            return f"CASE WHEN {name} THEN {one} WHEN NOT {name} THEN {zero} END"
        if pa.types.is_decimal(dtype) and dtype.precision > _EXACT_DIGITS:
            name = self._sql.cast(name, "text")  # a quotient of two floats would be rounded twice
        return self._sql.cast(name, "double")

    def _category(self, spec: CategoricalSpec) -> str:
        name, dtype = self._sql.quoted(spec.column), self._dtype(spec)
        if pa.types.is_boolean(dtype):
            return f"CASE WHEN {name} THEN 'true' WHEN NOT {name} THEN 'false' END"
        return self._sql.cast(name, "text")

    def _numeric(self, rows: Any, spec: NumericSpec) -> Any:
        ibis, number = self._ibis, self._sql.number
        edges = edges_of(spec, self._dtype(spec))
        firsts = [i for i, e in enumerate(edges) if np.isfinite(e) and (i == 0 or e != edges[i - 1])]
        x = rows.x

        def cell(low: int, high: int) -> Any:
            """The cell of a number that lies between two of the edges, by halves."""
            if low == high:
                return ibis.literal(2 * firsts[low] if low < len(firsts) else 2 * len(edges))
            at = (low + high) // 2
            edge = number(edges[firsts[at]])
            here = 2 * firsts[at] + 1
            return ibis.cases((x < edge, cell(low, at)), (x == edge, here), else_=cell(at + 1, high))

        lowest, highest = reach(spec)
        inverse = 1 / spec.unit
        if spec.unit > 1:
            tiny = spec.unit * _TINY  # some databases take what is less than the least float64 for an error
            near = ibis.cases(((x > number(-tiny)) & (x < number(tiny)), number(0)), else_=x)
            units = near * number(inverse) - number(spec.origin * inverse)
        else:
            units = (x - number(spec.origin)) * number(inverse)
        whole = ibis.cases(
            ((x >= number(lowest)) & (x <= number(highest)), (units + number(_TO_WHOLE)) - number(_TO_WHOLE)),
            (x > number(highest), number(LIMIT)),
            (x < number(lowest), number(-LIMIT)),
            else_=number(0),
        )
        cells = ibis.cases(
            (x.isnull(), _NULL),
            (x.isnan(), _NAN),
            (x > number(_LARGEST), _HIGH),
            (x < number(-_LARGEST), _LOW),
            else_=cell(0, len(firsts)),
        )
        saturated = ibis.cases(((x > number(highest)) | (x < number(lowest)), 1), else_=0)
        found = rows.mutate(cell=cells, whole=whole, saturated=saturated)
        found = found.mutate(q=found.whole.cast("int64"), high=(found.whole / number(_HALF)).floor().cast("int64"))
        found = found.mutate(low=found.q - found.high * _HALF)

        def total(column: Any) -> Any:
            return column.cast("int64").sum().cast("string")  # databases have many types of large whole numbers

        return found.group_by("stretch", "cell").agg(
            n=found.count(),
            units=total(found.q),
            high_high=total(found.high * found.high),
            high_low=total(found.high * found.low),
            low_low=total(found.low * found.low),
            saturated=found.saturated.sum().cast("string"),
            minimum=found.x.min(),
            maximum=found.x.max(),
        )

    def _categorical(self, rows: Any, spec: CategoricalSpec) -> Any:
        """The rows of each known category, and of the most frequent others."""
        ibis = self._ibis
        counts = rows.group_by("stretch", "x").agg(n=rows.count())
        listed = [name for name in spec.categories if "\0" not in name]  # which no database has in a text
        known = counts.x.isnull() | counts.x.isin(listed)
        counts = counts.mutate(known=ibis.cases((known, 0), else_=1))
        order = [counts.known, counts.n.desc(), counts.x]
        place = ibis.row_number().over(ibis.window(group_by=counts.stretch, order_by=order))
        whole = counts.n.sum().over(ibis.window(group_by=counts.stretch)).cast("string")
        counts = counts.mutate(place=place, whole=whole)
        return counts.filter(counts.place < len(listed) + 1 + UNSEEN_KEPT).select("stretch", "x", "n", "whole")


def reach(spec: NumericSpec) -> tuple[float, float]:
    """The least and the largest float64 that is at most `LIMIT` units from the origin, once rounded.

    Example:
        >>> reach(NumericSpec("x", np.array([0.0]), 0.0, 1.0, exact=True))
        (-34359738368.5, 34359738368.5)
    """
    found = []
    for end in (-_LARGEST, _LARGEST):
        near, far = _place(spec.origin), _place(end)
        while abs(far - near) > 1:
            middle = (near + far) // 2
            if abs(float(spec.units(np.array([_at(middle)]))[0])) <= LIMIT:
                near = middle
            else:
                far = middle
        inside = abs(float(spec.units(np.array([end]))[0])) <= LIMIT
        found.append(end if inside else _at(near))
    return found[0], found[1]


def _place(value: float) -> int:
    """The place of a float64 in the order of all: of that many steps from 0."""
    bits = int(np.float64(abs(value)).view(np.int64))
    return -bits if value < 0 else bits


def _at(place: int) -> float:
    """The float64 at a place."""
    return math.copysign(float(np.int64(abs(place)).view(np.float64)), place)


def _run(database: _Runs, text: str) -> list[Row]:
    return [row for batch in database.run(text) for row in batch.to_pylist()]


def _by_stretch(rows: Collection[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(int(row["stretch"]), []).append(row)
    return found


def _micros(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _profile(spec: Spec, rows: Sequence[Row], where: str) -> FeatureProfile:
    return (
        _numeric_profile(spec, rows) if isinstance(spec, NumericSpec) else _categorical_profile(spec, rows, where)
    )


def _numeric_profile(spec: NumericSpec, rows: Sequence[Row]) -> NumericProfile:
    n = {int(row["cell"]): int(row["n"]) for row in rows}
    finite = [row for row in rows if int(row["cell"]) >= 0]
    counts, sums = np.zeros(2 * len(spec.edges) + 1, np.int64), np.zeros(2 * len(spec.edges) + 1, np.int64)
    squares = 0
    for row in finite:
        counts[int(row["cell"])], sums[int(row["cell"])] = int(row["n"]), int(row["units"])
        squares += int(row["high_high"]) * _HALF**2 + 2 * int(row["high_low"]) * _HALF + int(row["low_low"])
    # adding 0.0 turns -0.0 into 0.0
    extremes = (
        [min(row["minimum"] for row in finite) + 0.0, max(row["maximum"] for row in finite) + 0.0]
        if finite
        else []
    )
    return NumericProfile(
        counts,
        sums,
        squares,
        sum(int(row["saturated"]) for row in finite),
        n.get(_NULL, 0),
        n.get(_NAN, 0),
        n.get(_HIGH, 0),
        n.get(_LOW, 0),
        *extremes,
    )


def _categorical_profile(spec: CategoricalSpec, rows: Sequence[Row], where: str) -> CategoricalProfile:
    counts, unseen, nulls, seen = np.zeros(len(spec.categories), np.int64), dict[str, int](), 0, 0
    whole = int(rows[0]["whole"]) if rows else 0
    for row in rows:
        n = int(row["n"])
        seen += n
        if row["x"] is None:
            nulls += n
            continue
        name = category_name(row["x"].encode("utf-8", "surrogatepass"))
        if (at := spec.index.get(name)) is None:
            unseen[name] = unseen.get(name, 0) + n
        else:
            counts[at] += n
    if seen < whole and any(len(name) > LONGEST_NAME for name in spec.categories):
        raise SchemaError(
            f"{where}: {spec.name!r} has too many values, some of them too long, to be counted by a database: "
            "leave it out (columns.ignore)"
        )
    return CategoricalProfile(counts, whole - nulls - int(counts.sum()), bounded(unseen), nulls)
