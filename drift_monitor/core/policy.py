"""Policies as a user writes them: what counts as drift, as broken data, and when to speak of it. No I/O."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from drift_monitor.core.types import Kind, UtcDatetime

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw])", re.ASCII)
_LONGEST = timedelta(days=36_500)  # so that now minus any two of them is a date
_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(KB|MB|GB|KiB|MiB|GiB)", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """Read `90s`, `15m`, `1h`, `1d` or `2w`.

    Raises:
        ValueError: anything else; a bare number has no unit and is refused.

    Example:
        >>> parse_duration("36h")
        datetime.timedelta(days=1, seconds=43200)
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration needs a number and a unit of s, m, h, d or w, such as 90s, 15m, 1h or 1d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"a duration can be {_LONGEST.days}d at most")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration the way a config file does; finer than a millisecond is cut.

    Example:
        >>> format_duration(timedelta(hours=36)), format_duration(timedelta(seconds=1.5))
        ('36h', '1.5s')
    """
    seconds = value.total_seconds()
    if not seconds:
        return "0s"
    unit = next(u for u in ("w", "d", "h", "m", "s") if seconds % _UNITS[u] == 0 or u == "s")
    return f"{seconds / _UNITS[unit]:.3f}".rstrip("0").rstrip(".") + unit


def parse_size(value: object) -> int:
    """Read `512MB` or `2GiB` into bytes.

    Example:
        >>> parse_size("2GiB")
        2147483648
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size needs a number and a unit of KB, MB, GB, KiB, MiB or GiB, such as 2GiB")
    return int(float(match[1]) * _BYTES[match[2]])


_AnyDuration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=Annotated[str, Field(pattern=_DURATION.pattern)]),
    PlainSerializer(format_duration, return_type=str),
]
Delay = Annotated[_AnyDuration, Field(ge=timedelta(0))]
Duration = Annotated[_AnyDuration, Field(gt=timedelta(0))]
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=str), Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Model(BaseModel):
    """Base of every section. Strict: read it from JSON, where a list may become a tuple and text a path."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Persistence(Model):
    """An alert opens when `hits` of the last `of` windows failed.

    Attributes:
        hits: failed windows that open an alert.
        of: newest windows that are looked at.
    """

    hits: Annotated[int, Field(ge=1)] = 1
    of: Annotated[int, Field(ge=1, le=1000)] = 1

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            match = re.fullmatch(r"(\d+) of (\d+)", value)
            if match is None:
                raise ValueError("persistence reads like '2 of 3'")
            return {"hits": int(match[1]), "of": int(match[2])}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.hits > self.of:
            raise ValueError(f"{self.hits} of {self.of}: cannot need more failed windows than are looked at")
        return self


class MethodThreshold(Model):
    """A fixed threshold for one method; there is no promise about false alarms with it."""

    method: str
    threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Alarm(Model):
    """When drift counts.

    Attributes:
        methods: the methods that decide, per kind; each with its size-aware default threshold.
        thresholds: fixed thresholds, method -> value, replacing the size-aware default; a method named
            here decides too.
        features: the same for single features, feature -> method -> value.
        alpha: chance of a false alarm per check for independent rows, shared out over features and methods.
        effect_floor_ks, effect_floor_share: smallest change that may count, however significant: the KS
            distance for numeric features, the largest change of a category's share for the others.
        min_rows: fewer rows in the window are `cannot_judge`.
        drifted_features, drifted_share: how many features (or which share) must drift for the monitor to.
        persistence: how many failed windows open an alert, such as `2 of 3`.
    """

    false_alerts_per_month: Annotated[
        float | None,
        Field(
            gt=0, le=30, description="the promise: at most so many on average; null for none (see docs/alarms.md)"
        ),
    ] = 1.0
    windows: Annotated[
        tuple[Duration, ...] | None,
        Field(
            description="further, shorter windows to look at in each check; 1h where the data carry it when absent"
        ),
    ] = None
    context: Annotated[
        Literal["none", "day_of_week", "hour_of_week"] | None,
        Field(description="what windows are compared with; by the reference's length when absent"),
    ] = None
    multivariate: Annotated[
        tuple[Literal["pairs", "rows"], ...],
        Field(description="pairs: correlations, every run; rows: a classifier on a sample of rows, once a day"),
    ] = ("pairs", "rows")
    methods: dict[Kind, tuple[str, ...]] = {}
    thresholds: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    features: dict[str, dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]] = {}
    report: Annotated[tuple[str, ...], Field(description="further methods to compute and show")] = ()
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.01
    effect_floor_ks: Annotated[float, Field(ge=0, lt=1)] = 0.05
    effect_floor_share: Annotated[float, Field(ge=0, lt=1)] = 0.02
    min_rows: Annotated[int, Field(ge=2)] = 100
    drifted_features: Annotated[int, Field(ge=1)] = 1
    drifted_share: Share | None = None
    persistence: Persistence = Persistence()
    cooldown: Annotated[Delay, Field(description="after an episode closes, none opens for this long")] = timedelta(
        0
    )
    remind: Annotated[Duration | None, Field(description="repeat the message of an open episode this often")] = (
        None
    )


class Quality(Model):
    """Overrides of the expectations that the reference implies. A number is the largest value allowed.

    Attributes:
        null_rate, unseen, out_of_range, constant: per feature; shares of rows.
        duplicates: share of rows whose id was seen before in the window; inferred when absent.
        min_rows, max_rows: volume of a window.
        freshness: the newest event may be this old at the window's end.
        disable: checks that are not made.
    """

    false_alerts_per_month: Annotated[
        float | None, Field(gt=0, le=30, description="the same promise for broken data; null for fixed limits")
    ] = 1.0
    null_rate: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    unseen: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    out_of_range: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    constant: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    duplicates: Annotated[float | None, Field(ge=0, le=1)] = None
    min_rows: Annotated[int | None, Field(ge=0)] = None
    max_rows: Annotated[int | None, Field(ge=1)] = None
    freshness: Duration | None = None
    disable: tuple[
        Literal["null_rate", "unseen", "out_of_range", "constant", "duplicates", "volume", "freshness"], ...
    ] = ()


class Maintenance(Model):
    """A stretch of event time in which windows are evaluated but no message is sent.

    Attributes:
        start: of the first window that is silent.
        end: from here on messages are sent again.
        reason: a note.
    """

    start: UtcDatetime
    end: UtcDatetime
    reason: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"end {self.end:%Y-%m-%dT%H:%MZ} is not after start {self.start:%Y-%m-%dT%H:%MZ}")
        return self
