"""The values that travel between the rooms.

Everything here is immutable and serialises to JSON, because a check runs in a child process and its
result is stored. Numpy stays out, so that the daemon's own process stays small: the summaries of data
live in `profile.py`.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AllowInfNan, AwareDatetime, BaseModel, ConfigDict

EDGES: Final = 1000
"""Quantile edges of a numeric feature unless set: bounds the error of Kolmogorov-Smirnov by 1/1000."""

Kind = Literal["numeric", "categorical", "boolean", "datetime"]
Role = Literal["feature", "prediction"]
Lane = Literal["drift", "quality"]
Finite = Annotated[float, AllowInfNan(False)]
UtcDatetime = Annotated[AwareDatetime, AfterValidator(lambda t: t.astimezone(UTC))]
_WORD = re.compile(r"[\w.:/+-]+")


class Value(BaseModel):
    """A frozen record that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Window(Value):
    """A half-open interval `[start, end)` of event time, in UTC.

    Attributes:
        start: included.
        end: not included.
    """

    start: UtcDatetime
    end: UtcDatetime

    @property
    def length(self) -> timedelta:
        """The time between start and end."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%dT%H:%M}Z .. {self.end:%Y-%m-%dT%H:%M}Z"


class Segment(Value):
    """The rows whose value of a column is this category.

    Attributes:
        column: of the data.
        value: a category as text, as results name it.
    """

    column: str
    value: str

    def __str__(self) -> str:
        return f"{_word(self.column)} = {_word(self.value)}"


def segment_feature(column: str, segment: Segment) -> str:
    r"""The name of a column in the rows of a segment. No two columns and segments have the same.

    Example:
        >>> segment_feature("dep_delay", Segment(column="carrier", value="UA"))
        'dep_delay where carrier = UA'
        >>> segment_feature("a where b", Segment(column="b", value='c "d"'))
        '"a where b" where b = "c \\"d\\""'
    """
    return f"{_word(column)} where {segment}"


def _word(text: str) -> str:
    """A name as it is where that is one word, else as a JSON string: what has spaces cannot end early."""
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class StatResult(Value):
    """The numbers of one stattest for one feature. Whether they mean drift is the verdict's business.

    Attributes:
        statistic: larger is always further apart.
        p_value: under the hypothesis of independent rows from one distribution; None where there is none.
        low, high: a bracket that holds the value a computation on raw rows would give; None when exact.
    """

    statistic: Finite
    p_value: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None


class Histogram(Value):
    """Reference and current shares over a few bins, for people to look at.

    Attributes:
        labels: one name a bin (an interval or a category).
        reference, current: shares of non-null rows, each summing to 1 (or to 0 when there are none).
    """

    labels: tuple[str, ...]
    reference: tuple[Finite, ...]
    current: tuple[Finite, ...]


Basis = Literal["calibrated", "extrapolated", "independent_rows", "none"]
"""What a promise about false alerts rests on."""


class Signal(Value):
    """One of the things that a calibrated alarm looks at; the largest is the run's score.

    Attributes:
        channel: `features` (the most unusual one), `together` (the mean of all), `pairs` (correlations), `rows` (a
            classifier on whole rows).
        window: length in seconds of the window it was seen in; 0 for features, which say so themselves.
        score: on the common scale, above what is typical.
        over: whether it is over the monitor's threshold.
        detail: what moved, in words; empty when nothing did.
    """

    channel: str
    window: int = 0
    score: Finite
    over: bool
    detail: str = ""


class FeatureResult(Value):
    """What one check found for one feature.

    Attributes:
        score, threshold: of the decisive method (the largest score/threshold); None when not judged.
        reason: why the feature was not judged, or a one-line account of what moved.
        effect: the change in the feature's own units, for people ("median 812 -> 1307").
        window: length in seconds of the window that is decisive; None when it is the run's own.
        name: of the column, or of the column in a segment: `dep_delay where carrier = UA`.
        column: whose values they are; empty in results that were stored before there were segments.
        segment: which rows were compared, here and in the reference; null for all.
        kind: how its values are compared.
        role: an input of the model, or its output.
        drifted: whether score is over threshold.
        method: the decisive one.
        null_ratio: share of rows without a usable value.
        out_of_range_ratio: share of values outside the reference's range; numeric and datetime only.
        new_category_ratio: share of values that the reference never had; categorical and boolean only.
        statistics: every method's numbers, by name of the method.
        histogram: reference and current side by side.
    """

    name: str
    column: str = ""
    segment: Segment | None = None
    kind: Kind
    role: Role = "feature"
    drifted: bool
    method: str | None = None
    score: Finite | None = None
    threshold: Finite | None = None
    window: int | None = None
    null_ratio: Finite | None = None
    out_of_range_ratio: Finite | None = None
    new_category_ratio: Finite | None = None
    reason: str | None = None
    effect: str | None = None
    statistics: dict[str, StatResult] = {}
    histogram: Histogram | None = None


class QualityResult(Value):
    """One data-quality expectation against the window.

    Attributes:
        check: null_rate | unseen | out_of_range | constant | duplicates | schema | volume | freshness.
        feature: None for checks of the whole window.
        value, threshold: larger is worse; None where the check has no number (schema).
        failed: whether value is over threshold.
        message: one sentence.
    """

    check: str
    feature: str | None = None
    failed: bool
    value: Finite | None = None
    threshold: Finite | None = None
    message: str


class Outcome(StrEnum):
    """A verdict on one window."""

    OK = "ok"
    DRIFT = "drift"
    BROKEN = "broken"
    NO_DATA = "no_data"
    CANNOT_JUDGE = "cannot_judge"


class FailureReason(StrEnum):
    """Why a run could not judge; the label of `run_failures_total`."""

    SOURCE = "source"
    REFERENCE = "reference"
    SCHEMA = "schema"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    INTERNAL = "internal"


class ReferenceId(Value):
    """Which reference version a window was compared with.

    Attributes:
        version: name of the version.
        sha256: hash of its contents.
        rows: of the training data.
        created: when the version was built.
        model_version: of the model that was trained on it; empty where that was not told.
    """

    version: str
    sha256: str
    rows: int
    created: UtcDatetime
    model_version: str = ""


class Comparison(Value):
    """The same window compared with the reference before the present one, for a while after a promotion.

    Attributes:
        reference: what it was compared with.
        verdict: that there would have been.
        reason: of it, a sentence.
        score, threshold: of the monitor on that reference.
        drifted: features over their thresholds, most drifted first.
    """

    reference: ReferenceId | None
    verdict: Outcome
    reason: str
    score: Finite | None
    threshold: Finite | None
    drifted: tuple[str, ...] = ()


class Loss(Value):
    """How wrong the predictions of a stretch were, by one measure; smaller is better.

    Attributes:
        metric: `log_loss` (nats), `error_rate` (share of wrong decisions) and `cost` (mean of a decision) where
            the truth is yes or no, `error_rate` where it is text, else `mean_absolute_error`.
        value: mean over the predictions that have a label.
        standard_error: of that mean, if rows were independent; null for a single one.
        reference: the same of the reference's row sample; null where that has no labels.
    """

    metric: str
    value: Finite
    standard_error: Finite | None = None
    reference: Finite | None = None


class Performance(Value):
    """How good the model's predictions were, in the newest stretch whose labels are complete.

    Attributes:
        window: of the predictions: one window long, and over since the horizon of the labels.
        rows: predictions.
        labelled: those whose label arrived within the horizon.
        scored: of these, those whose prediction and label are usable numbers.
        losses: empty when none could be scored.
        reference_rows: of the reference's sample that were scored.
        note: what is missing and why; empty when nothing is.
    """

    window: Window
    rows: int
    labelled: int
    scored: int
    losses: tuple[Loss, ...] = ()
    reference_rows: int = 0
    note: str = ""

    @property
    def coverage(self) -> float | None:
        """Share of the predictions that have a label; None without predictions."""
        return self.labelled / self.rows if self.rows else None


class Revision(Value):
    """What was first said of a window, before rows of it came late and it was judged again.

    Attributes:
        verdict, rows, score: of the first judgement.
        times: how often it was judged again with another result.
    """

    verdict: Outcome
    rows: int
    score: Finite | None
    times: int


class CheckResult(Value):
    """The result of one check of one window: the JSON contract of `docs/json.md`.

    Attributes:
        reason: one sentence that says why the verdict is what it is.
        failure: set when, and only when, the verdict is `cannot_judge` because something failed.
        score, threshold: of the monitor; drift when score > threshold. None when not judged.
        promise: what is promised about false alarms, in words.
        promise_basis: what that rests on.
        false_alerts_per_month: the number promised; None without a promise.
        signals: what the score is the largest of; empty without a calibration.
        features: in order of blame, most drifted first.
        invalid_rows: rows of the window left out because they could not be read as rows.
        newest_event: the newest event time seen in the window.
        seconds: time spent by phase (reference, source, judge, labels).
        versions: of the packages that computed it.
        monitor: name in the configuration.
        window: the stretch of event time that was judged.
        rows: in the window; of a sample, those that were read.
        sample: percent of a table's pages, or of the window's rows, that was read; null without a sample.
        verdict: `ok`, `drift`, `broken`, `no_data` or `cannot_judge`.
        reference: what the window was compared with; null when it could not be opened.
        quality: every expectation that was checked.
        duplicate_rows: rows whose id came before in the window; null without an id column.
        previous: the same for the reference before, for a while after a promotion; it decides nothing.
        performance: of the model, where `labels` are configured; it decides nothing.
        read_from: hash of how rows are counted and where they come from, a colon, and a hash of the kept profiles
            that the window was merged from: the same text, the same rows; null where they were read for this check
            alone.
        reopened: earlier windows that are made of other kept profiles now; they are judged again.
        revised: what was said first, where other rows changed it.
    """

    monitor: str
    window: Window
    rows: int
    verdict: Outcome
    reason: str
    failure: FailureReason | None = None
    score: Finite | None = None
    threshold: Finite | None = None
    promise: str
    promise_basis: Basis = "none"
    false_alerts_per_month: Finite | None = None
    signals: tuple[Signal, ...] = ()
    reference: ReferenceId | None = None
    features: tuple[FeatureResult, ...] = ()
    quality: tuple[QualityResult, ...] = ()
    duplicate_rows: int | None = None
    invalid_rows: int = 0
    newest_event: UtcDatetime | None = None
    sample: Finite | None = None
    seconds: dict[str, Finite] = {}
    versions: dict[str, str] = {}
    previous: Comparison | None = None
    performance: Performance | None = None
    read_from: str | None = None
    reopened: tuple[Window, ...] = ()
    revised: Revision | None = None

    @property
    def drifted(self) -> tuple[FeatureResult, ...]:
        """The features over their thresholds, most drifted first."""
        return tuple(f for f in self.features if f.drifted)

    @property
    def failed_quality(self) -> tuple[QualityResult, ...]:
        """The expectations that the window broke."""
        return tuple(q for q in self.quality if q.failed)


class Episode(Value):
    """One stretch of drift (or of broken data) from open to resolve.

    Attributes:
        id: derived from monitor, lane and the window that opened it, so a re-run gives the same one.
        opened, updated, closed: ends of the windows at which that happened (event time).
        reminded: end of the window of the last message about it.
        worst: the largest severity that a message has told of (score/threshold, or the number of failed quality
            expectations); escalation compares with it.
        features: those to blame at the last window that failed, most drifted first.
        told: those that a message named, in the order of first naming.
        since: by feature to blame, the end of the first window of the episode in which it was.
        held: what holds a retraining back, by guard rail; empty when nothing does, or none is configured.
        retrained: the model that ended it was trained on newer data.
        untold: a backfill recorded it, so that nobody has heard of it yet.
    """

    id: str
    monitor: str
    lane: Lane
    opened: UtcDatetime
    updated: UtcDatetime
    closed: UtcDatetime | None = None
    reminded: UtcDatetime
    worst: Finite
    features: tuple[str, ...]
    told: tuple[str, ...] = ()
    since: dict[str, UtcDatetime] = {}
    held: dict[str, str] = {}
    retrained: bool = False
    untold: bool = False


class Message(Value):
    """One event for the outbox: a CloudEvents 1.0 envelope before it becomes JSON.

    Attributes:
        id: stable; the receiver's dedupe key together with `source`.
        type: `drift_monitor.drift.opened` and the like.
        group: the episode's id; messages of one group are delivered in order.
    """

    id: str
    type: str
    source: str
    subject: str
    time: UtcDatetime
    group: str
    data: dict[str, object]
