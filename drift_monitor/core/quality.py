"""Data quality: a window's profile against what the reference implies and the configuration adds.

A window that fails is *broken*: something happened to the data on its way, and its owner should look. A window
whose data is sound but different has *drifted*. Checks that cannot tell the two apart by their nature (values
outside the reference's range, categories it did not have) fail only where change alone is an unlikely cause, and
leave the rest to the drift lane. The limits come from `expectations.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from drift_monitor.core.expectations import (
    CERTAINTY,
    MICROSECOND,
    Expectations,
    Limit,
    Spike,
    null_rate,
    spike,
)
from drift_monitor.core.fold import accepts
from drift_monitor.core.policy import format_duration
from drift_monitor.core.profile import (
    CategoricalProfile,
    FeatureProfile,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
    whole_columns,
)
from drift_monitor.core.types import QualityResult, Window


def assess(
    specs: Sequence[Spec],
    reference: Profile,
    current: Profile,
    schema: Mapping[str, str],
    expected: Expectations,
    window: Window,
    fraction: float | None = None,
    *,
    min_rows: int = 1,
) -> tuple[QualityResult, ...]:
    """Check a window against its expectations.

    Args:
        specs: one a feature.
        reference: the profile of the reference.
        current: the profile of the window.
        schema: columns of the live data and their Arrow types, by name (`str(field.type)`).
        expected: what the reference and the configuration ask of such windows.
        window: the window; its end is what freshness is measured against, never a clock.
        fraction: of the window's rows that were read, > 0; None when all were.
        min_rows: of a segment with fewer rows nothing is checked.

    Returns:
        Every check that was made, passed or failed; of the schema only what failed, or one result that passed.
    """
    results = _schema(specs, current, schema)
    if current.rows:
        for spec in specs:
            profile = current.features.get(spec.name)
            if profile is None or (spec.segment is not None and profile.rows < max(min_rows, 1)):
                continue
            for check, limits in (
                (_nulls, expected.null_rate),
                (_unseen, expected.unseen),
                (_out_of_range, expected.out_of_range),
                (_spike if expected.sliced else _pooled_spike, expected.constant),
            ):
                if spec.name in limits:
                    results.append(check(spec, reference.features[spec.name], profile, limits[spec.name]))
            if spec.name in expected.zero:
                results.append(_zero(spec, reference.features[spec.name], profile, expected.zero[spec.name]))
    results += _whole_window(current, expected, window, fraction)
    return tuple(r for r in results if r is not None)


# -- one feature ----------------------------------------


def _nulls(spec: Spec, reference: FeatureProfile, current: FeatureProfile, limit: Limit) -> QualityResult:
    n, missing = current.rows, current.missing
    pooled = reference.missing / reference.rows if reference.rows else 0.0
    most = limit.at(n)
    # nothing but nulls is broken even where some window of the reference was so, if its rows as a whole were not
    if missing == n and not limit.fixed and null_rate(reference) ** n < CERTAINTY:
        most = min(most, 1 - 1 / n)
    what = "null, NaN or infinite" if spec.kind == "numeric" else "null"
    return _share("null_rate", spec, missing, n, most, f"{what} ({pooled:.2%} in the reference)")


def _unseen(spec: Spec, _reference: FeatureProfile, current: FeatureProfile, limit: Limit) -> QualityResult | None:
    if not isinstance(current, CategoricalProfile) or not current.n:
        return None
    names = sorted(current.unseen, key=lambda c: (-current.unseen[c], c))[:3]
    such = f" ({', '.join(repr(n) for n in names)})" if names else ""
    return _share(
        "unseen", spec, current.other, current.n, limit.at(current.n), f"of a category new to the reference{such}"
    )


def _out_of_range(
    spec: Spec, _reference: FeatureProfile, current: FeatureProfile, limit: Limit
) -> QualityResult | None:
    """Rows outside the reference's range. An inferred limit fails only if they lie far outside.

    A warm day after a winter's reference is out of range with every row, and that is drift. So the rows outside
    must also lie, in the mean, further from the range than the range is wide, as a wrong unit or a sentinel does.
    """
    if not isinstance(spec, NumericSpec) or not isinstance(current, NumericProfile) or not current.n:
        return None
    low, high = float(spec.edges[0]), float(spec.edges[-1])
    far = [
        int(current.counts[cell]) and abs(_mean(spec, current, cell) - edge) > high - low
        for cell, edge in ((0, low), (-1, high))
    ]
    result = _share(
        "out_of_range",
        spec,
        current.out_of_range,
        current.n,
        limit.at(current.n),
        f"outside {_number(spec, low)} .. {_number(spec, high)}",
    )
    if not result.failed or limit.fixed:
        return result
    if any(far):
        return result.model_copy(update={"message": result.message + ", and they lie far outside"})
    return result.model_copy(
        update={"failed": False, "message": result.message + ", but they lie near it: a matter of drift"}
    )


def _spike(spec: Spec, reference: FeatureProfile, current: FeatureProfile, limit: Limit) -> QualityResult | None:
    if not current.n:
        return None
    found = spike(spec, reference, current)
    return _spike_result(spec, current, found, limit.at(current.n, found.expected))


def _zero(spec: Spec, reference: FeatureProfile, current: FeatureProfile, limit: Limit) -> QualityResult | None:
    """Zeros, which broken pipelines write most often; told only where there are too many."""
    if not isinstance(spec, NumericSpec) or not current.n or not isinstance(current, NumericProfile):
        return None
    at = 2 * int(np.flatnonzero(spec.edges == 0)[0]) + 1
    assert isinstance(reference, NumericProfile)  # noqa: S101 - as its spec is
    known, count = int(reference.counts[at]), int(current.counts[at])
    expected = known / max(reference.n, 1)
    result = _spike_result(spec, current, Spike("0", count, expected, known), limit.at(current.n, expected))
    return result if result.failed else None


def _pooled_spike(
    spec: Spec, reference: FeatureProfile, current: FeatureProfile, limit: Limit
) -> QualityResult | None:
    """Without windows of the reference, a value that it has often enough may have filled one of them."""
    if not current.n:
        return None
    found = spike(spec, reference, current)
    most = limit.at(current.n, found.expected)
    return _spike_result(
        spec, current, found, most if limit.fixed else max(most, min(1.0, found.known / current.n))
    )


def _spike_result(spec: Spec, current: FeatureProfile, found: Spike, most: float) -> QualityResult:
    what = f"{found.value} ({found.expected:.2%} in the reference)"
    return _share("constant", spec, found.count, current.n, most, what)


def _share(check: str, spec: Spec, count: int, n: int, most: float, what: str) -> QualityResult:
    share = count / n
    message = f"{spec.name}: {share:.2%} of {n} rows are {what}; at most {most:.2%} are expected"
    return QualityResult(
        check=check, feature=spec.name, failed=share > most, value=share, threshold=most, message=message
    )


def _mean(spec: NumericSpec, profile: NumericProfile, cell: int) -> float:
    return spec.origin + spec.unit * (int(profile.sums[cell]) / int(profile.counts[cell]))


def _number(spec: NumericSpec, value: float) -> str:
    if spec.kind == "datetime":
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%MZ}" if abs(value) < 2e11 else f"{value:g} s"
    return f"{value:g}"


# -- the whole window ----------------------------------------------------------------------------------


def _whole_window(
    current: Profile, expected: Expectations, window: Window, fraction: float | None
) -> list[QualityResult]:
    results = []
    such = "rows" if fraction is None else "rows of the sample"
    ids = current.ids
    if ids is not None and expected.duplicates is not None and (n := int(ids.counts.sum())):
        share = ids.duplicate_share
        most = expected.duplicates.at(n)
        message = f"{share:.2%} of the {such} repeat an id of the same window; at most {most:.2%} are expected"
        results.append(
            QualityResult(check="duplicates", failed=share > most, value=share, threshold=most, message=message)
        )
    if expected.min_rows is not None or expected.max_rows is not None:
        results.append(_rows(current.rows, expected.min_rows, expected.max_rows, fraction))
    if expected.freshness is not None and current.newest is not None:
        age = window.end - datetime(1970, 1, 1, tzinfo=UTC) - current.newest * MICROSECOND
        results.append(
            QualityResult(
                check="freshness",
                failed=age > expected.freshness,
                value=age.total_seconds(),
                threshold=expected.freshness.total_seconds(),
                message=f"the newest event is {format_duration(_whole_seconds(age))} older than the window's end; "
                f"at most {format_duration(_whole_seconds(expected.freshness))} are expected",
            )
        )
    return results


def _rows(read: int, low: float | None, high: float | None, fraction: float | None) -> QualityResult:
    """Volume, as how many times too few or too many rows there are: more than 1 fails. A sample is scaled up."""
    rows = read if fraction is None else round(read / fraction)
    counted = f"{rows:,} rows" if fraction is None else f"about {rows:,} rows, by the {read:,} of the sample"
    too_few = (low or 0.0) / max(rows, 0.5)
    too_many = rows / max(high, 0.5) if high is not None else 0.0
    between = f"{math.ceil(low or 0):,}" + (f" to {math.floor(high):,}" if high is not None else " or more")
    return QualityResult(
        check="volume",
        failed=rows < (low or 0.0) or (high is not None and rows > high),
        value=max(too_few, too_many),
        threshold=1.0,
        message=f"{counted}; {between} are expected (set quality.min_rows and max_rows if that is wrong)",
    )


def _whole_seconds(value: timedelta) -> timedelta:
    return timedelta(seconds=round(value.total_seconds()))


def _schema(specs: Sequence[Spec], current: Profile, schema: Mapping[str, str]) -> list[QualityResult | None]:
    columns = whole_columns(specs)
    features = {spec.name for spec in columns}
    failures: list[QualityResult | None] = []
    for spec in columns:  # what is wrong with one is wrong in all segments
        message = _misfit(spec, current, schema, features)
        if message:
            failures.append(QualityResult(check="schema", feature=spec.name, failed=True, message=message))
    passed = QualityResult(
        check="schema", failed=False, message=f"all {len(columns)} columns are there, with types that fit"
    )
    return failures or [passed]


def _misfit(spec: Spec, current: Profile, schema: Mapping[str, str], features: set[str]) -> str | None:
    name = spec.name
    if name not in schema:
        close = get_close_matches(name, [c for c in schema if c not in features], n=1)
        return f"column {name!r} is missing" + (f"; the data has {close[0]!r}, was it renamed?" if close else "")
    dtype = arrow_type(schema[name])
    if dtype is None or not accepts(spec.kind, dtype):
        return (
            f"column {name!r} is {schema[name]}, which cannot be read as the {spec.kind} feature of the reference"
        )
    if current.rows and name not in current.features:
        return f"column {name!r} is missing in a part of the data"
    return None


def arrow_type(name: str) -> pa.DataType | None:
    """The Arrow type that prints as `name`, as far as `accepts` tells types apart; None for any other.

    Example:
        >>> arrow_type("dictionary<values=string, indices=int32, ordered=0>"), arrow_type("list<item: int8>")
        (DataType(string), None)
    """
    if match := re.fullmatch(r"dictionary<values=(.+), indices=\w+, ordered=[01]>", name):
        return arrow_type(match[1])
    if name.startswith("timestamp["):
        return pa.timestamp("us")
    if name.startswith("decimal"):
        return pa.decimal128(38)
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return None
