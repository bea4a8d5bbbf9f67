"""One check of one window: quality -> stattests -> verdict -> result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from drift_monitor.core.alarm import RunScore
from drift_monitor.core.calibration import Calibration
from drift_monitor.core.errors import ConfigError
from drift_monitor.core.expectations import Expectations, calibrated, expectations
from drift_monitor.core.misfits import misfits
from drift_monitor.core.policy import Alarm, Quality
from drift_monitor.core.profile import Profile, Spec
from drift_monitor.core.quality import assess
from drift_monitor.core.types import CheckResult, QualityResult, ReferenceId, StatResult, Window
from drift_monitor.core.verdict import judge, usual_effects

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Baseline:
    """What a reference says of windows of one length, before any is looked at; costly, and good for all of them.

    Attributes:
        expected: for data quality.
        usual: the largest effect of each feature among the reference's own windows; {} when not cut into any.
        calibration: of the monitor on this reference; None where there is none.
        why_not: why there is none, in words.
    """

    expected: Expectations
    usual: Mapping[str, float]
    calibration: Calibration | None = None
    why_not: str = ""


def baseline(
    specs: Sequence[Spec],
    reference: Profile,
    quality: Quality,
    length: timedelta,
    windows: Mapping[int, Profile] | None = None,
    calibration: Calibration | None = None,
    why_not: str = "thresholds are not calibrated",
) -> Baseline:
    """Learn what a window may look like.

    Args:
        specs: one a feature of the reference.
        reference: its profile.
        quality: overrides of the expectations.
        length: of a window.
        windows: the reference cut into windows of this length (`expectations.slices`). Without them rates of nulls
            and the like are judged by the reference's pooled rows, and the order of blame by score/threshold.
        calibration: of the monitor; its limits replace those of the quality lane.
        why_not: why there is none, in words.
    """
    expected = expectations(specs, reference, quality, windows=windows, length=length)
    if calibration is not None:
        expected = calibrated(expected, specs, reference, quality, calibration)
    usual = usual_effects(specs, reference, (windows or {}).values())
    return Baseline(expected, usual, calibration, why_not)


def check(
    name: str,
    window: Window,
    specs: Sequence[Spec],
    reference: Profile,
    reference_id: ReferenceId,
    current: Profile | None,
    schema: Mapping[str, str],
    alarm: Alarm,
    quality: Quality,
    known: Baseline,
    *,
    extra: Mapping[str, Mapping[str, StatResult]] | None = None,
    scored: RunScore | None = None,
    details: Mapping[str, str] | None = None,
    invalid_rows: int = 0,
    fraction: float | None = None,
    brief: bool = False,
) -> CheckResult:
    """Judge a window that has been read.

    The same arguments give the same bytes of JSON: there is no clock in it. `seconds` and `versions` are left to
    the caller.

    Args:
        name: of the monitor.
        window: the stretch of event time.
        specs: one a feature of the reference.
        reference: its profile.
        reference_id: which version it is.
        current: the profile of the window; None when it has no rows.
        schema: columns of the live data and their Arrow types, by name (`str(field.type)`).
        alarm: when drift counts.
        quality: overrides of the expectations.
        known: what the reference says of such windows: `baseline` of the same specs, reference and quality.
        extra: results of methods that need rows, feature -> method -> result (`verdict.outside_methods`).
        scored: the run on the scales of `known.calibration` (`alarm.score_runs`); None without one.
        details: what moved, in words, by channel of `scored` that is no single feature.
        invalid_rows: rows of the window that could not be read as rows.
        fraction: of the window's rows that were read, > 0; None when all were.
        brief: only what decides: no statistics that are shown beside it, no histograms. For replays of a log.

    Raises:
        ConfigError: the policies name features or methods that are not there; all are told.
    """
    if problems := misfits(specs, alarm, quality):
        raise ConfigError(problems)
    profile = current or Profile(0, {})
    found: tuple[QualityResult, ...] = ()
    if profile.rows:
        found = assess(
            specs, reference, profile, schema, known.expected, window, fraction, min_rows=alarm.min_rows
        )
    judgement = judge(
        specs,
        reference,
        profile,
        found,
        alarm,
        extra=extra,
        usual=known.usual,
        scored=scored,
        why_not=known.why_not,
        details=details,
        brief=brief,
    )
    return CheckResult(
        monitor=name,
        window=window,
        rows=profile.rows,
        verdict=judgement.outcome,
        reason=judgement.reason,
        score=judgement.score,
        threshold=judgement.threshold,
        promise=judgement.promise,
        promise_basis=judgement.basis,
        false_alerts_per_month=judgement.budget,
        signals=judgement.signals,
        reference=reference_id,
        features=judgement.features,
        quality=found,
        duplicate_rows=_duplicates(profile),
        invalid_rows=invalid_rows,
        newest_event=None if profile.newest is None else _EPOCH + timedelta(microseconds=profile.newest),
    )


def _duplicates(profile: Profile) -> int | None:
    """Rows whose id stands on an earlier row of the window; an estimate where only a share of the ids was kept."""
    return None if profile.ids is None else round(profile.ids.duplicate_share * profile.ids.rows)
