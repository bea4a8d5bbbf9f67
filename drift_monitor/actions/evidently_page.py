"""Two row samples -> one self-contained HTML page by Evidently. Heavy: imported only in the report's own process.

Evidently writes names and categories into the page's script as they are, so a category `</script>...` would run
in the reader's browser, and one column that it cannot handle loses all the others. So text is made harmless before
Evidently sees it, and columns that cannot be shown are left out, each with its reason.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.types import Kind

MAX_CATEGORIES: Final = 50
"""Categories shown by name; a bar chart of more cannot be read, and 20,000 took Evidently 10 seconds."""
_LONGEST: Final = 120
_EMPTY: Final = "<!DOCTYPE html>\n<html lang='en'>\n<head><meta charset='UTF-8'></head>\n<body></body>\n</html>\n"


@dataclass(frozen=True)
class Page:
    """The finished report.

    Attributes:
        html: self-contained.
        omitted: column -> why it is not shown.
        notes: column -> what was done to show it.
    """

    html: str
    omitted: Mapping[str, str]
    notes: Mapping[str, str]


def render(
    reference: pa.Table,
    current: pa.Table,
    kinds: Mapping[str, Kind],
    *,
    title: str,
    facts: Mapping[str, str],
    omitted: Mapping[str, str] | None = None,
) -> Page:
    """Draw the drift of each column.

    Args:
        reference: rows the model was trained on.
        current: live rows.
        kinds: column -> kind, in the order in which to show them.
        title: of the page.
        facts: what the page says of itself, name -> value.
        omitted: columns that were left out before, and why.
    """
    left_out = dict(omitted or {})
    notes: dict[str, str] = {}
    sides: dict[str, tuple[pd.Series[Any], pd.Series[Any]]] = {}
    numeric: set[str] = set()
    shown: dict[str, str] = {}
    for name, kind in kinds.items():
        try:
            pair, note = _prepare(name, kind, reference, current)
        except ValueError as error:
            left_out[name] = str(error)
            continue
        label = _unique(harmless(name), sides)
        sides[label], shown[label] = pair, name
        if kind in {"numeric", "datetime"}:
            numeric.add(label)
        if note:
            notes[name] = note
    html = _draw(sides, numeric)
    if html is None:  # rare: find the column that Evidently stumbles over, and leave out just that
        for label in list(sides):
            if _draw({label: sides[label]}, numeric) is None:
                left_out[shown[label]] = "Evidently could not draw it"
                del sides[label]
        html = _draw(sides, numeric) or _EMPTY
    return Page(_with_heading(html, title, facts, left_out, notes), left_out, notes)


def harmless(text: str) -> str:
    r"""Text that reads the same to a person and is nothing but text to a browser; long text keeps its beginning.

    Example:
        >>> harmless("</script>\n")
        '\\u003c/script\\u003e\\u000a'
    """
    if len(text) > _LONGEST:  # the hash keeps texts with the same beginning apart
        text = f"{text[:_LONGEST]}... {hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return "".join(c if c.isprintable() and c not in "<>" else f"\\u{ord(c):04x}" for c in text)


def _prepare(
    name: str, kind: Kind, reference: pa.Table, current: pa.Table
) -> tuple[tuple[pd.Series[Any], pd.Series[Any]], str]:
    """Both sides of a column as Evidently wants them, and what was done to it.

    Raises:
        ValueError: the column cannot be shown; the text says why.
    """
    read = _read_numbers if kind in {"numeric", "datetime"} else _read_text
    columns = []
    for side, table in (("reference", reference), ("live", current)):
        if name not in table.column_names:
            raise ValueError(f"not among the {side} columns")
        try:
            values = read(table.column(name), kind)
        except pa.ArrowException as error:
            raise ValueError(
                f"the {side} column is of type {table.column(name).type}, which cannot be read as {kind}"
            ) from error
        if values.notna().sum() == 0:
            raise ValueError(f"no usable value in the {table.num_rows} {side} rows")
        columns.append(values)
    before, now = columns
    if kind == "datetime":
        zero = before.min()
        return (
            before - zero,
            now - zero,
        ), f"shown as days since {pd.Timestamp(zero, unit='D'):%Y-%m-%d %H:%M} UTC"
    if kind == "numeric":
        return (before, now), ""
    return _keep_frequent(before, now)


def _read_numbers(column: pa.ChunkedArray, kind: Kind) -> pd.Series[Any]:
    """Finite numbers and NaN; datetimes in days."""
    if kind == "datetime":
        micros = column.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.float64())
        column = pc.divide(micros, 86_400e6)
    values = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    return pd.Series(np.where(np.isfinite(values), values, np.nan))


def _read_text(column: pa.ChunkedArray, kind: Kind) -> pd.Series[Any]:
    """Harmless text and None."""
    del kind
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    safe = np.array(
        [*(harmless(v) if v is not None else None for v in encoded.dictionary.to_pylist()), None], object
    )
    codes = encoded.indices.fill_null(len(safe) - 1).to_numpy(zero_copy_only=False)
    return pd.Series(safe[codes], dtype=object)


def _keep_frequent(
    before: pd.Series[Any], now: pd.Series[Any]
) -> tuple[tuple[pd.Series[Any], pd.Series[Any]], str]:
    counts: Counter[str] = Counter()
    for side in (before, now):
        shares = side.value_counts(normalize=True)
        counts.update(dict(zip(shares.index, shares, strict=True)))
    if len(counts) <= MAX_CATEGORIES:
        return (before, now), ""
    kept = set(sorted(counts, key=lambda c: (-counts[c], c))[:MAX_CATEGORIES])
    rest = f"({len(counts) - MAX_CATEGORIES:,} others)"
    merged = tuple(side.where(side.isin(kept) | side.isna(), rest) for side in (before, now))
    return (merged[0], merged[1]), (
        f"the {MAX_CATEGORIES} most frequent of {len(counts):,} categories are shown, the others together"
    )


def _unique(label: str, taken: Mapping[str, object]) -> str:
    number = 2
    candidate = label
    while candidate in taken:
        candidate = f"{label} ({number})"
        number += 1
    return candidate


def _draw(sides: Mapping[str, tuple[pd.Series[Any], pd.Series[Any]]], numeric: set[str]) -> str | None:
    """Evidently's page, or None when it fails or there is nothing to draw."""
    if not sides:
        return None
    os.environ["DO_NOT_TRACK"] = "1"  # read when Evidently is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - takes seconds
        from evidently.metrics import ValueDrift  # noqa: PLC0415
    definition = DataDefinition(
        numerical_columns=[label for label in sides if label in numeric],
        categorical_columns=[label for label in sides if label not in numeric],
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference, current = (
                Dataset.from_pandas(pd.DataFrame({label: pair[i] for label, pair in sides.items()}), definition)
                for i in (0, 1)
            )
            snapshot = Report([ValueDrift(column=label) for label in sides]).run(current, reference)
            html: str = snapshot.get_html_str(as_iframe=False)
    except Exception:  # noqa: BLE001 - it raises whatever its libraries raise; the caller isolates the column
        return None
    return html


def _with_heading(
    html: str,
    title: str,
    facts: Mapping[str, str],
    omitted: Mapping[str, str],
    notes: Mapping[str, str],
) -> str:
    def listed(heading: str, items: Mapping[str, str]) -> str:
        if not items:
            return ""
        rows = "".join(f"<li><code>{_text(name)}</code>: {_text(why)}</li>" for name, why in items.items())
        return f"<h3>{heading}</h3><ul>{rows}</ul>"

    rows = "".join(f"<tr><th align='left'>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts.items())
    heading = (
        "<section style='font-family:sans-serif;margin:1.5em'>"
        f"<h1>{_text(title)}</h1><table cellpadding='4'>{rows}</table>"
        + listed("Columns left out", omitted)
        + listed("Columns shown in part", notes)
        + "</section>"
    )
    for mark, addition in (("</head>", f"<title>{_text(title)}</title></head>"), ("<body>", f"<body>{heading}")):
        if mark not in html:
            raise ValueError(f"Evidently's page has no {mark}, so its heading cannot be placed")
        html = html.replace(mark, addition, 1)
    return html


def _text(value: str) -> str:
    """Text for HTML; lone surrogates and control characters become visible."""
    return escape("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value))
