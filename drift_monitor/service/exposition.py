"""The two text formats that Prometheus reads, and text that is compressed once and goes on at each scrape.

Not prometheus_client's own rendering: that takes five seconds for 200,000 samples (`benchmarks/scrape.py`).
Sources: Prometheus text format 0.0.4; OpenMetrics 1.0.0, sections ABNF and Exemplars.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

PREFIX = "drift_monitor_"
Buckets = tuple[tuple[float, ...], tuple[int, ...], float]  # bounds without +Inf, counts of each bucket, sum
Labels = tuple[str, ...]  # values in the order of the metric's labels
Sample = tuple[Labels, float | Buckets]
Drawn = Mapping[str, Sequence[Sample]]  # by name of the metric, without the prefix

_GZIP = 31  # zlib's window bits: the largest window, in a gzip wrapper
_LEVEL = 1  # label values repeat so much that more effort gains little
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Spec(NamedTuple):
    """One metric of the catalogue.

    Attributes:
        help: one line without quotes and backslashes, so that no format needs to escape it.
    """

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


class Exemplar(NamedTuple):
    """One thing that was counted or observed: the run behind it, by its id.

    Attributes:
        value: what was added or observed.
    """

    run: int
    value: float
    at: datetime


Exemplars = Mapping[tuple[str, Labels], Sequence[Exemplar]]  # by metric and label values


def render(specs: Iterable[Spec], drawn: Drawn, exemplars: Exemplars, *, openmetrics: bool) -> bytes:
    """Families as text, without the end mark of OpenMetrics.

    Args:
        specs: the families, in this order; those without samples are named all the same.
        drawn: the samples.
        exemplars: of counters and histograms; the older format has no place for them.
        openmetrics: which of the two formats.
    """
    lines: list[str] = []
    escape = cache(_escape)  # a feature's name comes once a metric
    for spec in specs:
        name = PREFIX + spec.name
        family = name.removesuffix("_total") if openmetrics and spec.type == "counter" else name
        lines += (f"# HELP {family} {spec.help}\n", f"# TYPE {family} {spec.type}\n")
        form = ",".join(f'{label}="%s"' for label in spec.labels)
        start, end = (f"{name}{{", "} ") if spec.labels else (name, " ")
        for values, value in drawn.get(spec.name, ()):
            labels = form % tuple(map(escape, values))
            seen = exemplars.get((spec.name, values), ()) if openmetrics and spec.type != "gauge" else ()
            if isinstance(value, tuple):
                lines += _histogram(name, labels, value, seen)
            else:
                lines.append(f"{start}{labels}{end}{_number(value)}{_told(seen[-1]) if seen else ''}\n")
    return "".join(lines).encode()


class Compressed:
    """Text in gzip that can be continued any number of times, so that no part of it is compressed twice.

    Args:
        text: what it says.
        after: what comes before that.
    """

    def __init__(self, text: bytes, after: Compressed | None = None) -> None:
        before: tuple[bytes, ...] = ()
        self._encoder = zlib.compressobj(_LEVEL, wbits=_GZIP)
        if after is not None:
            before, self._encoder = after._parts, after._encoder.copy()  # noqa: SLF001 - of the same class
        self._parts: tuple[bytes, ...] = (*before, self._encoder.compress(text))

    def whole(self, rest: bytes = b"") -> bytes:
        """One gzip member: the text so far and the rest of it."""
        encoder = self._encoder.copy()
        return b"".join((*self._parts, encoder.compress(rest), encoder.flush()))


def _histogram(name: str, labels: str, value: Buckets, seen: Sequence[Exemplar]) -> Iterator[str]:
    bounds, counts, total = value
    told = {bisect_left(bounds, exemplar.value): _told(exemplar) for exemplar in seen}
    comma = "," if labels else ""
    for i, (bound, n) in enumerate(zip((*bounds, math.inf), accumulate(counts), strict=True)):
        yield f'{name}_bucket{{{labels}{comma}le="{_number(bound)}"}} {_number(n)}{told.get(i, "")}\n'
    yield f"{name}_count{{{labels}}} {_number(sum(counts))}\n"
    yield f"{name}_sum{{{labels}}} {_number(total)}\n"


def _told(exemplar: Exemplar) -> str:
    return f' # {{run_id="{exemplar.run}"}} {_number(exemplar.value)} {exemplar.at.timestamp():.3f}'


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escape(text: str) -> str:
    return text.translate(_ESCAPES)
