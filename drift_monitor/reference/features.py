"""Which columns of the training data are watched, as what, and what speaks against it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.config.models import Columns, covered
from drift_monitor.core.arrow import numbers
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.fold import accepts, category_name
from drift_monitor.core.profile import (
    MAX_CATEGORIES,
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    NumericProfile,
    NumericSpec,
    Spec,
)
from drift_monitor.core.types import Kind, Role
from drift_monitor.reference.manifest import Feature

_MANY: Final = 1000  # rows below which it is no wonder that all values differ


def kind_of(dtype: pa.DataType) -> Kind | None:
    """The kind that an Arrow type implies; None for types that cannot be watched.

    Example:
        >>> kind_of(pa.int8()), kind_of(pa.string()), kind_of(pa.list_(pa.int8()))
        ('numeric', 'categorical', None)
    """
    if isinstance(dtype, pa.DictionaryType):
        dtype = dtype.value_type
    kinds: tuple[Kind, ...] = ("boolean", "datetime", "numeric", "categorical")
    return next((kind for kind in kinds if accepts(kind, dtype)), None)


def plan(schema: pa.Schema, columns: Columns, timestamp: str | None) -> tuple[list[Feature], list[str]]:
    """The columns to watch, in their order, and sentences about those that cannot be.

    Args:
        schema: of the training data.
        columns: what its columns mean. A label or an id need not be in the training data.
        timestamp: column of event time, which is no feature.

    Raises:
        BadReferenceError: `columns` names one that is not there, or a kind that does not fit; all are named.
    """
    needed = {"timestamp": timestamp, "prediction": columns.prediction}
    named = [(f"columns.{role}" if role != "timestamp" else role, name) for role, name in needed.items() if name]
    named += [("columns.features", n) for n in columns.features or () if not covered([n], schema.names)]
    named += [("columns.kinds", name) for name in columns.kinds]
    problems = [f"{role}: {_unknown(name, schema.names)}" for role, name in named if name not in schema.names]
    for name, kind in columns.kinds.items():
        if name in schema.names and not accepts(kind, schema.field(name).type):
            problems.append(
                f"columns.kinds: {name!r} is {schema.field(name).type}, which cannot be read as {kind}"
            )
    if problems:
        raise BadReferenceError("no reference can be built: " + "; ".join(problems))
    features: list[Feature] = []
    warnings: list[str] = []
    for field in map(schema.field, columns.watched(schema.names, timestamp)):
        watched = columns.kinds.get(field.name) or kind_of(field.type)
        if watched is None:
            warnings.append(
                f"column {field.name!r} is {field.type}, which cannot be watched: log what matters of it as "
                "numbers, text, truth values or times"
            )
            continue
        role: Role = "prediction" if field.name == columns.prediction else "feature"
        features.append(Feature(name=field.name, kind=watched, role=role, type=str(field.type)))
    return features, warnings


def fit(feature: Feature, column: pa.Array, edges: int) -> Spec:
    """Choose the cells of a feature from all of its values; those of a number lie between so many quantiles.

    Args:
        feature: which.
        column: its values, of a categorical feature as a dictionary.
        edges: quantile edges of a numeric feature.

    Raises:
        SchemaError: it has none.
    """
    if feature.kind == "numeric" or feature.kind == "datetime":  # noqa: PLR1714 - mypy narrows this form only
        values = np.empty(0) if pa.types.is_null(column.type) else numbers(column)
        return NumericSpec.fit(feature.name, values, kind=feature.kind, role=feature.role, edges=edges)
    counts = most_frequent(column, MAX_CATEGORIES + 1)
    return CategoricalSpec.fit(feature.name, counts, kind=feature.kind, role=feature.role)


def most_frequent(column: pa.Array, limit: int) -> dict[str, int]:
    """The most frequent categories of a dictionary with their rows; ties go by name."""
    codes = column.indices.drop_null().to_numpy(zero_copy_only=False)
    counts = np.bincount(codes, minlength=len(column.dictionary)) if len(codes) else np.zeros(0, np.int64)
    used = np.flatnonzero(counts)
    table = pa.table(
        {"name": column.dictionary.take(pa.array(used)).cast(pa.string()).cast(pa.binary()), "rows": counts[used]}
    ).filter(pc.field("name").is_valid())
    top = pc.select_k_unstable(table, limit, [("rows", "descending"), ("name", "ascending")])
    table = table.take(top)
    return dict(zip(map(category_name, table["name"].to_pylist()), table["rows"].to_pylist(), strict=True))


def doubt(spec: Spec, profile: FeatureProfile, dtype: pa.DataType) -> str | None:
    """Why a feature may be of little use; None when nothing speaks against it."""
    if isinstance(spec, NumericSpec) and isinstance(profile, NumericProfile):
        if len(spec.edges) == 1:
            return f"has one value only ({spec.edges[0]:g})"
        if pa.types.is_integer(dtype) and profile.n >= _MANY and _all_differ(spec, profile):
            return "no two rows have the same whole number: if it is an id, list it under columns.ignore"
    if isinstance(spec, CategoricalSpec) and isinstance(profile, CategoricalProfile):
        if len(spec.categories) == 1:
            return f"has one value only ({spec.categories[0]!r})"
        if not spec.complete:
            share = profile.other / profile.n
            return (
                f"has more than {MAX_CATEGORIES} categories: the rarer ones, {share:.0%} of the rows, are counted "
                "as one; if it is an id or free text, list it under columns.ignore"
            )
        if profile.n >= _MANY and len(spec.categories) > profile.n / 2:
            return "most rows have a text of their own: if it is an id or free text, list it under columns.ignore"
    return None


def _all_differ(spec: NumericSpec, profile: NumericProfile) -> bool:
    """As far as the cells tell: every edge met once, and room for the rest between the ends."""
    edges_once = int(profile.counts[1::2].max()) == 1
    return edges_once and float(spec.edges[-1] - spec.edges[0]) + 1 >= profile.n


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(repr(k) for k in known[:20])}"
    return f"the training data has no column {name!r}; {hint}"
