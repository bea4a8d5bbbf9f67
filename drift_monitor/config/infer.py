"""A training file -> a configuration, every guess with a comment that says why and what to do if it is wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from drift_monitor.config.problem import printable
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.policy import format_duration

SAMPLE_ROWS = 100_000
_ROWS_A_WINDOW = 500  # a window that has about this many rows can be judged
_CODES = 50  # distinct whole numbers that may still be names of things
_FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "json", ".ndjson": "json"}

_TIME_NAMES = ("event_time", "event_timestamp", "timestamp", "datetime", "ts", "time", "date", "created_at")
_PREDICTION_NAMES = (
    *("prediction", "predictions", "predicted", "pred", "y_pred", "yhat", "y_hat"),
    *("score", "y_score", "model_score", "probability", "proba", "y_proba"),
)
_LABEL_NAMES = ("label", "target", "y", "y_true", "ground_truth", "actual", "outcome", "class")
_ID_NAMES = ("id", "row_id", "event_id", "request_id", "prediction_id", "uuid", "key")
_ID_PARTS = re.compile(r"(^|[^a-z0-9])(id|uuid|guid|key|nr|no|number)$|[a-z0-9](Id|ID|UUID)$")
_PLAIN_NAMES = frozenset(("training", "train", "train_data", "training_data", "reference", "data"))
_PREDICTION_PARTS = re.compile(
    r"^(?:p|prob|proba|pred|predicted|score)_(.+)|(.+)_(?:pred|prediction|proba|score)$"
)
_CODE_PARTS = re.compile(r"(^|_)(id|code|zip|zipcode|postcode|weekday|month|type|class|category|cluster|group)$")
_RESERVED = re.compile(r"|~|null|true|false|\.?nan|[-+]?\.inf", re.IGNORECASE)


@dataclass(frozen=True)
class Guess:
    """A column, or nothing, and why.

    Attributes:
        advice: what to do if the guess is wrong.
    """

    column: str | None
    why: str
    advice: str = ""


@dataclass(frozen=True)
class Inferred:
    """What a training file suggests.

    Attributes:
        ignore: column -> why it is no feature.
        kinds: column -> (kind, why), where the type alone would imply another kind.
        every: how often to check, and how long a window is.
    """

    name: str
    timestamp: Guess
    prediction: Guess
    label: Guess
    id: Guess
    ignore: dict[str, str]
    kinds: dict[str, tuple[str, str]]
    features: tuple[str, ...]
    every: timedelta
    every_why: str


def infer(training: Path) -> Inferred:
    """Guess what the columns of a training file mean, from their names and the first rows.

    Args:
        training: Parquet, CSV or JSONL.

    Raises:
        BadReferenceError: it cannot be read or has no rows.
    """
    table, vectors = read_head(training)
    if not table.num_rows:
        raise BadReferenceError(f"{training} has no rows, so nothing can be inferred from it")
    columns = {field.name: _Column(field.name, table[field.name]) for field in table.schema}
    ignore = {c.name: c.useless for c in columns.values() if c.useless}
    rest = [c for c in columns.values() if c.name not in ignore]
    timestamp = _timestamp(rest)
    rest = [c for c in rest if c.name != timestamp.column]
    prediction = _prediction(rest)
    rest = [c for c in rest if c.name != prediction.column]
    label = _label(rest, prediction.column)
    rest = [c for c in rest if c.name != label.column]
    identifier = _identifier(rest, table.num_rows)
    rest = [c for c in rest if c.name != identifier.column]
    ignore |= {c.name: why for c in rest if (why := c.too_many)}
    rest = [c for c in rest if c.name not in ignore]
    every, every_why = _window(None if timestamp.column is None else columns[timestamp.column], table.num_rows)
    return Inferred(
        name=_monitor_name(training),
        timestamp=timestamp,
        prediction=prediction,
        label=label,
        id=identifier,
        ignore=ignore,
        kinds={c.name: ("categorical", why) for c in rest if (why := c.code)},
        features=(*(c.name for c in rest), *(f"{name} (vectors)" for name in vectors)),
        every=every,
        every_why=every_why,
    )


def read_head(training: Path, rows: int = SAMPLE_ROWS) -> tuple[pa.Table, list[str]]:
    """The first rows of a training file, evenly spread over nothing: cheap whatever its size.

    Returns:
        Columns as they can be named, but for those made of vectors, and the vectors' names.

    Raises:
        BadReferenceError: it is missing, of an unknown format, or damaged.
    """
    kind = _FORMATS.get(training.suffix.lower())
    if kind is None:
        raise BadReferenceError(f"{training}: a training file ends in {', '.join(_FORMATS)}")
    if not training.is_file():
        raise BadReferenceError(f"{training}: no such file")
    try:
        dataset = ds.dataset(training, format=kind)
        flat = Flat(dataset.schema)
        names = [column.field.name for column in flat.columns if not column.part]
        table = dataset.head(rows, columns=flat.roots(names), batch_size=10_000)
        schema = pa.schema([flat.schema.field(name) for name in names])
        read = pa.Table.from_batches([flat.pick(batch, names) for batch in table.to_batches()], schema)
    except (OSError, pa.ArrowException) as error:
        raise BadReferenceError(f"{training} cannot be read as {kind}: {error}") from error
    return read, list(dict.fromkeys(".".join(column.path) for column in flat.columns if column.part))


def write_config(inferred: Inferred, training: Path, target: Path) -> str:
    """The text of a configuration file.

    Args:
        inferred: from `infer`.
        training: the file it came from.
        target: where the text will go; paths in it are relative to its folder where they are below it.
    """
    reference = _relative(training, target)
    suffix = training.suffix.lower()
    lines = [
        f"# Written by `drift-monitor init {printable(training.name, 200)}`: all below is a guess, read it once.",
        "# `drift-monitor check-config --explain` shows what it means, `drift-monitor schema` every key there is.",
        "state: state",
        "monitors:",
        f"  {scalar(inferred.name)}:",
        "    # The data that the model was trained on. The first check builds a reference from it.",
        f"    reference: {scalar(reference)}",
        "    source:",
        "      # Where live rows arrive, with the same columns: a file, folder or glob. A placeholder.",
        f"      path: {scalar(f'live/*{suffix}')}",
        *_guess_lines("      ", "timestamp", inferred.timestamp),
        f"    # {inferred.every_why}",
        f"    schedule: {{every: {format_duration(inferred.every)}}}",
        f"    window: {_window_text(inferred.every)}",
        "    columns:",
        *_guess_lines("      ", "prediction", inferred.prediction),
        *_guess_lines("      ", "label", inferred.label),
        *_guess_lines("      ", "id", inferred.id),
    ]
    lines += ["      # Columns that are not watched; remove one from the list to watch it."]
    lines += ["      ignore:" if inferred.ignore else "      ignore: []"]
    lines += [f"        - {scalar(name)}  # {why}" for name, why in inferred.ignore.items()]
    if inferred.kinds:
        lines += ["      # Numbers that look like names of things; remove a line to treat it as a quantity."]
        lines += ["      kinds:"]
        lines += [f"        {scalar(name)}: {kind}  # {why}" for name, (kind, why) in inferred.kinds.items()]
    shown = ", ".join(printable(name, 40) for name in inferred.features[:30])
    more = f" and {len(inferred.features) - 30} more" if len(inferred.features) > 30 else ""
    lines += [
        f"      # The other {len(inferred.features)} columns are features: {shown}{more}",
        "    alarm:",
        "      persistence: 1 of 1  # 2 of 3 waits for a second failed window of three before it opens an alarm",
    ]
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    r"""Text as YAML writes it: plain where that is safe, else in double quotes.

    Example:
        >>> print(scalar("tail_number"), scalar("no: 1"), scalar("null"), scalar("a\nb"))
        tail_number "no: 1" "null" "a\nb"
    """
    if re.fullmatch(r"[A-Za-z_][\w./*-]*", text, re.ASCII) and not _RESERVED.fullmatch(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in quoted)


class _Column:
    """A column's sample, with the questions that guessing asks."""

    def __init__(self, name: str, values: pa.ChunkedArray) -> None:
        self.name = name
        self.folded = name.casefold()
        self.type = values.type
        self.values = values.drop_null()
        self.nulls = values.null_count
        text = any(
            ask(self.type) for ask in (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
        )
        self.is_time = pa.types.is_timestamp(self.type) or pa.types.is_date(self.type)
        self.is_time = self.is_time or (text and self._reads_as_time())
        self.is_text = text and not self.is_time
        self.is_number = any(
            ask(self.type) for ask in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        )
        self.is_boolean = pa.types.is_boolean(self.type)
        known = self.is_time or self.is_text or self.is_number or self.is_boolean
        self.distinct = len(pc.unique(self.values)) if known else 0
        self.useless = self._useless(known=known)

    def _useless(self, *, known: bool) -> str:
        if not len(self.values):
            return "has no values in the first rows"
        return "" if known else f"values of type {printable(str(self.type), 40)} are not watched"

    def _reads_as_time(self) -> bool:
        first = [str(value) for value in self.values.slice(0, 20).to_pylist()]
        return bool(first) and all(_read_time(text) is not None for text in first)

    def span(self) -> timedelta:
        """From the oldest to the newest time."""
        values = self.values
        if pa.types.is_timestamp(self.type) or pa.types.is_date(self.type):
            values = values.cast(pa.timestamp("us"), safe=False)
        elif pa.types.is_dictionary(self.type):
            values = values.cast(pa.string())
        found = pc.min_max(values)  # of ISO text the order is near enough that of time
        low, high = (_read_time(found[end].as_py()) for end in ("min", "max"))
        return timedelta(0) if low is None or high is None else high - low

    @property
    def too_many(self) -> str:
        """Why it is too varied to be a feature; empty when it is not."""
        if self.is_text and self.distinct > 100 and self.distinct > 0.5 * len(self.values):
            return f"text with {self.distinct:,} different values in {len(self.values):,} rows"
        return ""

    @property
    def code(self) -> str:
        """Why numbers are probably names; empty when they are not."""
        if pa.types.is_integer(self.type) and self.distinct <= _CODES and _CODE_PARTS.search(self.folded):
            return f"{self.distinct} different whole numbers, and its name says that it is a code"
        return ""

    def within(self, low: float, high: float) -> bool:
        if not self.is_number:
            return False
        found = pc.min_max(self.values.cast(pa.float64(), safe=False)).as_py()
        return bool(low <= found["min"] and found["max"] <= high)


def _read_time(value: str | datetime) -> datetime | None:
    """A time in UTC, from ISO 8601 text of a day or more precise; None for anything else."""
    try:
        if isinstance(value, str):
            if len(value) < len("2013-01-01"):
                return None
            value = datetime.fromisoformat(value)
        return value.replace(tzinfo=value.tzinfo or UTC)
    except ValueError:
        return None


def _timestamp(columns: Sequence[_Column]) -> Guess:
    times = [c for c in columns if c.is_time]
    advice = "the time at which the row happened, not the time at which it was written"
    if not times:
        return Guess(None, "no column has times", "without one the whole source is a single window")
    best = min(times, key=lambda c: (_rank(c.folded, _TIME_NAMES), c.nulls, columns.index(c)))
    others = [printable(c.name, 40) for c in times if c is not best]
    if not others:
        return Guess(best.name, "the only column with times", advice)
    return Guess(best.name, f"one of {len(times)} columns with times; also {', '.join(others)}", advice)


def _prediction(columns: Sequence[_Column]) -> Guess:
    advice = "the model's output, watched like a feature; remove it when there is none"
    named = [c for c in columns if c.folded in _PREDICTION_NAMES]
    if named:
        best = min(named, key=lambda c: _PREDICTION_NAMES.index(c.folded))
        return Guess(best.name, "by its name", advice)
    for column in columns:
        if _PREDICTION_PARTS.match(column.folded) and column.within(0, 1):
            return Guess(column.name, "by its name, with values between 0 and 1", advice)
    return Guess(None, "no column looks like the model's output", "name the one that is")


def _label(columns: Sequence[_Column], prediction: str | None) -> Guess:
    advice = "the truth that arrives later; it is not watched as a feature"
    named = [c for c in columns if c.folded in _LABEL_NAMES]
    if named:
        return Guess(min(named, key=lambda c: _LABEL_NAMES.index(c.folded)).name, "by its name", advice)
    match = _PREDICTION_PARTS.match((prediction or "").casefold())
    stem = (match[1] or match[2]) if match else None
    for column in columns:
        if stem and column.folded in (stem, f"is_{stem}", f"was_{stem}", f"has_{stem}"):
            return Guess(column.name, f"by its name, which is that of {printable(prediction or '', 40)}", advice)
    return Guess(None, "no column looks like the truth", "name the one that is, so that it is not watched")


def _identifier(columns: Sequence[_Column], rows: int) -> Guess:
    advice = "used to count duplicate rows"
    unique = [c for c in columns if c.distinct == rows and (c.is_text or pa.types.is_integer(c.type))]
    for column in sorted(unique, key=lambda c: _rank(c.folded, _ID_NAMES)):
        if column.folded in _ID_NAMES or _ID_PARTS.search(column.folded) or _ID_PARTS.search(column.name):
            return Guess(column.name, f"by its name, different in each of the first {rows:,} rows", advice)
    why = "no column with another value in every row has the name of an id"
    return Guess(None, why, "name the one that is, to have duplicates counted")


def _window(column: _Column | None, rows: int) -> tuple[timedelta, str]:
    day = timedelta(days=1)
    if column is None:
        return day, "Without a timestamp every check looks at the whole source."
    span = column.span()
    if span < timedelta(minutes=1):
        return day, "The training rows carry nearly the same time, so this is the usual window of a day."
    a_day = rows / (span / day)
    every = next(
        (w for w in (timedelta(hours=1), day, timedelta(weeks=1)) if a_day * (w / day) >= _ROWS_A_WINDOW),
        timedelta(weeks=1),
    )
    every = max(every, day) if span > timedelta(days=3) else every
    count = a_day * (every / day)
    return every, f"The training rows come at about {count:,.0f} a window of {format_duration(every)}."


def _window_text(every: timedelta) -> str:
    delay = min(every / 12, timedelta(hours=2))
    text = f"{{length: {format_duration(every)}, delay: {format_duration(delay)}}}"
    return f"{text}  # delay: how long rows may be late"


def _guess_lines(indent: str, key: str, guess: Guess) -> list[str]:
    comment = f"{indent}# {guess.why}: {guess.advice}"
    if guess.column is None:
        return [comment, f"{indent}# {key}: ..."]
    return [comment, f"{indent}{key}: {scalar(guess.column)}"]


def _rank(name: str, known: Sequence[str]) -> int:
    if name in known:
        return known.index(name)
    return len(known) + (0 if any(part in known for part in name.split("_")) else 1)


def _monitor_name(training: Path) -> str:
    """The file's name; where that says nothing, such as `training`, its folder's."""
    named = training.absolute().parent.name if training.stem.casefold() in _PLAIN_NAMES else training.stem
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", named).strip("-_.")[:63] or "monitor"


def _relative(path: Path, target: Path) -> str:
    absolute, folder = path.absolute(), target.absolute().parent
    return os.path.relpath(absolute, folder) if absolute.is_relative_to(folder) else str(absolute)
