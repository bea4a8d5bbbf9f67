"""Which windows are due: intervals, cron, clock changes, downtime, clocks that are set."""

import itertools
import operator
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_monitor.config.models import Monitor, Schedule, WindowConfig
from drift_monitor.core.errors import StoreError
from drift_monitor.core.types import Window
from drift_monitor.service.clock import Clock, ReplayClock
from drift_monitor.service.scheduler import Scheduler, due_windows, fires_after

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BERLIN = ZoneInfo("Europe/Berlin")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due(schedule, newest, now, *, delay="0s", length="1d", limit=10_000):
    window = WindowConfig.model_validate({"length": length, "delay": delay, "bucket": "1s"}, strict=False)
    previous = newest and Window(start=at(newest) - window.length, end=at(newest))
    found = due_windows(Schedule.model_validate(schedule, strict=False), window, previous, at(now), limit)
    assert all(w.length == window.length for w in found.windows)
    return [f"{w.end:%Y-%m-%dT%H:%M:%S}" for w in found.windows], found.left_out


def fires(cron, timezone, start, n):
    schedule = Schedule(cron=cron, timezone=timezone)
    return [f"{t:%d %H:%M}" for t in itertools.islice(fires_after(schedule, at(start)), n)]


@pytest.mark.parametrize(
    ("newest", "now", "expected"),
    [
        (None, "2026-03-04T10:59:59", ["2026-03-04T10:00:00"]),
        (None, "2026-03-04T10:00:00", ["2026-03-04T10:00:00"]),
        ("2026-03-04T10:00:00", "2026-03-04T10:59:59", []),
        ("2026-03-04T10:00:00", "2026-03-04T11:00:00", ["2026-03-04T11:00:00"]),
        ("2026-03-04T08:00:00", "2026-03-04T10:30:00", ["2026-03-04T09:00:00", "2026-03-04T10:00:00"]),
        ("2026-03-04T08:20:00", "2026-03-04T09:30:00", ["2026-03-04T09:00:00"]),  # another grid before
        ("2027-01-01T00:00:00", "2026-03-04T10:30:00", ["2026-03-04T10:00:00"]),  # a ledger ahead of the clock
    ],
)
def test_an_interval(newest, now, expected):
    assert due({"every": "1h"}, newest, now) == (expected, 0)


def test_a_window_is_due_when_its_delay_is_over():
    assert due({"every": "1h"}, "2026-03-04T07:00:00", "2026-03-04T09:59:59", delay="2h") == ([], 0)
    assert due({"every": "1h"}, "2026-03-04T07:00:00", "2026-03-04T10:00:00", delay="2h") == (
        ["2026-03-04T08:00:00"],
        0,
    )


def test_intervals_are_aligned_to_the_epoch_whatever_their_length():
    [end], _ = due({"every": "7d"}, None, "2026-03-04T10:00:00")
    assert (at(end) - at("1970-01-01")) % timedelta(days=7) == timedelta(0)


def test_the_limit_keeps_the_newest_and_counts_the_rest():
    assert due({"every": "1h"}, "2026-03-01T00:00:00", "2026-03-02T00:00:00", limit=2) == (
        ["2026-03-01T23:00:00", "2026-03-02T00:00:00"],
        22,
    )
    assert due({"cron": "0 * * * *"}, "2026-03-01T00:00:00", "2026-03-02T00:00:00", limit=2) == (
        ["2026-03-01T23:00:00", "2026-03-02T00:00:00"],
        22,
    )


def test_weekdays_by_name():
    assert due({"cron": "30 6 * * mon-fri"}, "2026-03-06T06:30:00", "2026-03-10T12:00:00")[0] == [
        "2026-03-09T06:30:00",
        "2026-03-10T06:30:00",
    ]


def test_a_rare_date_is_found_years_back():
    assert due({"cron": "0 0 29 2 *"}, None, "2027-05-01T00:00:00") == (["2024-02-29T00:00:00"], 0)


def test_a_date_that_never_comes_is_never_due():
    assert due({"cron": "0 0 30 2 *"}, None, "2026-05-01T00:00:00") == ([], 0)


def test_half_past_two_in_berlin_when_clocks_go_back():
    # 02:30 CEST is 00:30 UTC; the second 02:30 of the night, in CET, is not another day's
    assert fires("30 2 * * *", "Europe/Berlin", "2025-10-24T12:00", 4) == [
        "25 00:30",
        "26 00:30",
        "27 01:30",
        "28 01:30",
    ]


def test_half_past_two_in_berlin_when_clocks_go_forward():
    # there is no 02:30 on the 30th; it fires at 03:30 CEST
    assert fires("30 2 * * *", "Europe/Berlin", "2025-03-28T12:00", 3) == ["29 01:30", "30 01:30", "31 00:30"]


def test_an_hourly_schedule_does_not_pause_when_clocks_change():
    for start in ("2025-10-25T22:30", "2025-03-29T22:30"):
        hours = fires("0 * * * *", "Europe/Berlin", start, 5)
        assert [h[3:] for h in hours] == ["23:00", "00:00", "01:00", "02:00", "03:00"]


minutes = st.sampled_from(["*", "0", "30", "*/7", "5,35"])
hours = st.sampled_from(["*", "2", "1-3", "*/2", "23"])
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
moments = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
offsets = st.integers(-3 * 3600, 3 * 3600).map(lambda s: timedelta(seconds=s))
changes = st.sampled_from([at("2025-10-26T00:59"), at("2025-03-30T00:59"), at("2025-04-05T14:59")])


@given(minutes, hours, zones, st.one_of(moments, st.builds(operator.add, changes, offsets)))
def test_fire_times_rise_and_do_not_depend_on_where_one_starts(minute, hour, zone, start):
    schedule = Schedule(cron=f"{minute} {hour} * * *", timezone=zone)
    times = list(itertools.islice(fires_after(schedule, start), 8))
    assert all(a < b for a, b in itertools.pairwise([start, *times]))
    for i, t in enumerate(times[:-1]):
        assert next(fires_after(schedule, t)) == times[i + 1]
        assert next(fires_after(schedule, t - timedelta(microseconds=1))) == t


@given(st.one_of(st.just({"every": "7m"}), st.just({"cron": "*/20 * * * *"})), moments, st.integers(0, 5 * 3600))
def test_entering_piecemeal_or_at_once_gives_the_same_windows(schedule, start, seconds):
    schedule = Schedule.model_validate(schedule, strict=False)
    window = WindowConfig(length=HOUR)
    [newest], _ = due_windows(schedule, window, None, start)
    end = start + timedelta(seconds=seconds)
    at_once = due_windows(schedule, window, newest, end).windows
    piecemeal, now = [], start
    while now < end:
        now = min(now + timedelta(minutes=13), end)
        piecemeal += due_windows(schedule, window, piecemeal[-1] if piecemeal else newest, now).windows
    assert piecemeal == at_once


class Ledger:
    """What the store does with windows, in memory."""

    def __init__(self):
        self.windows, self.missed_total, self.broken = {}, 0, None

    def newest_window(self, monitor):
        if self.broken:
            raise self.broken
        return max((w for m, w in self.windows if m == monitor), key=lambda w: w.end, default=None)

    def enqueue(self, monitor, due, missed=()):
        new = [w for w in due if self.windows.get((monitor, w), "missed") == "missed"]
        skipped = [w for w in missed if (monitor, w) not in self.windows]
        self.windows |= {(monitor, w): "due" for w in new} | {(monitor, w): "missed" for w in skipped}
        self.missed_total += len(skipped)
        return len(new)

    def count(self, name, labels, by=1):
        assert (name, labels) == ("runs_missed_total", {"monitor": "m"})
        self.missed_total += by

    def ends(self, state="due"):
        return sorted(f"{w.end:%d %H:%M}" for (_, w), s in self.windows.items() if s == state)


class SetClock(Clock):
    """A clock under test: it stands still, and can be moved with or without the machine's own time."""

    def __init__(self, now):
        self.time, self.steps = at(now), 0.0

    def now(self):
        return self.time

    def wall(self, logical):
        return datetime.now(UTC) + (logical - self.time)

    def offset(self):
        return self.steps

    def pass_by(self, time):
        self.time += time

    def set_by(self, time):
        self.time += time
        self.steps += time.total_seconds()


def monitor(**schedule):
    return Monitor.model_validate(
        {"reference": "r", "source": {"path": "p"}, "schedule": schedule or {"every": "1h"}}, strict=False
    )


@pytest.fixture
def make():
    made = []

    def build(clock, ledger, **schedule):
        scheduler = Scheduler(ledger, clock)
        scheduler.replace({"m": monitor(**schedule)})  # not started: the test decides when it looks
        made.append(scheduler)
        return scheduler

    yield build
    for scheduler in made:
        scheduler.stop()


def test_the_first_start_enters_the_latest_window_only(make):
    ledger = Ledger()
    make(SetClock("2026-03-04T10:30"), ledger).enter_due("m")
    assert (ledger.ends(), ledger.missed_total) == (["04 10:00"], 0)


@pytest.mark.parametrize(
    ("catch_up", "expected", "missed"),
    [("latest", ["04 10:00", "04 14:00"], ["04 11:00", "04 12:00", "04 13:00"]),
     ("all", ["04 10:00", "04 11:00", "04 12:00", "04 13:00", "04 14:00"], [])],
)  # fmt: skip
def test_windows_missed_in_downtime(make, catch_up, expected, missed):
    ledger, clock = Ledger(), SetClock("2026-03-04T10:30")
    make(clock, ledger, every="1h", catch_up=catch_up).enter_due("m")
    clock.pass_by(4 * HOUR)
    restarted = make(clock, ledger, every="1h", catch_up=catch_up)
    restarted.enter_due("m")
    restarted.enter_due("m")
    assert (ledger.ends("due"), ledger.ends("missed")) == (expected, missed)
    assert ledger.missed_total == len(missed)


def test_more_missed_windows_than_the_ledger_takes_are_counted(make):
    ledger, clock = Ledger(), SetClock("2026-03-04T10:30")
    make(clock, ledger, every="1s", catch_up="all").enter_due("m")
    clock.pass_by(DAY)
    make(clock, ledger, every="1s", catch_up="all").enter_due("m")
    assert (len(ledger.ends("due")), ledger.missed_total) == (10_001, 86_400 - 10_000)


def test_a_clock_set_back_enters_nothing_twice_and_goes_on(make):
    ledger, clock = Ledger(), SetClock("2026-03-04T10:30")
    scheduler = make(clock, ledger)
    scheduler.enter_due("m")
    clock.set_by(-HOUR)
    scheduler.enter_due("m")
    clock.pass_by(HOUR)
    scheduler.enter_due("m")
    clock.pass_by(HOUR)
    scheduler.enter_due("m")
    assert (ledger.ends(), ledger.missed_total) == (["04 09:00", "04 10:00", "04 11:00"], 0)


def test_a_clock_a_month_ahead_writes_nothing_off(make):
    ledger, clock = Ledger(), SetClock("2026-03-04T10:30")
    scheduler = make(clock, ledger)
    scheduler.enter_due("m")
    clock.set_by(30 * DAY)
    scheduler.enter_due("m")
    assert (ledger.ends("due"), ledger.missed_total) == (["03 10:00", "04 10:00"], 0)
    clock.set_by(-30 * DAY)
    for _ in range(3):
        clock.pass_by(HOUR)
        scheduler.enter_due("m")
    assert ledger.ends("due") == ["03 10:00", "04 10:00", "04 11:00", "04 12:00", "04 13:00"]


def test_a_start_with_the_clock_a_month_ahead_costs_no_window(make):
    ledger, clock = Ledger(), SetClock("2026-03-04T10:30")
    make(clock, ledger).enter_due("m")
    clock.set_by(30 * DAY)  # while no daemon ran, so it looks like downtime
    scheduler = make(clock, ledger)
    scheduler.enter_due("m")
    assert len(ledger.ends("missed")) == 30 * 24 - 1
    clock.set_by(-30 * DAY)
    for _ in range(3):
        scheduler.enter_due("m")
        clock.pass_by(HOUR)
    assert ledger.ends("due") == ["03 10:00", "04 10:00", "04 11:00", "04 12:00"]


def test_the_watch_notices_a_step_and_not_the_passing_of_time(make, caplog):
    clock = SetClock("2026-03-04T10:30")
    scheduler = make(clock, Ledger())
    clock.pass_by(30 * DAY)
    assert not scheduler.watch_clock()
    clock.set_by(timedelta(seconds=1))  # slewed, not stepped
    assert not scheduler.watch_clock()
    clock.set_by(-HOUR)
    assert scheduler.watch_clock()
    assert not scheduler.watch_clock()
    assert "clock was set" in caplog.text


def test_a_running_scheduler_follows_a_clock_that_is_set():
    ledger, clock, entered = Ledger(), SetClock("2026-03-04T10:59:59.9"), threading.Event()
    scheduler = Scheduler(ledger, clock, entered=entered.set)
    scheduler.start({"m": monitor()})
    try:
        assert entered.wait(30)
        entered.clear()
        assert scheduler.running
        assert ledger.ends() == ["04 10:00"]
        clock.set_by(30 * DAY)
        assert scheduler.watch_clock()  # without it the next look is an hour away
        assert entered.wait(30)
        assert ledger.ends() == ["03 10:00", "04 10:00"]
    finally:
        scheduler.stop()
    assert not scheduler.running


def test_a_ledger_that_cannot_be_written_is_told_and_tried_again(make):
    ledger, clock, told = Ledger(), SetClock("2026-03-04T10:30"), []
    scheduler = Scheduler(ledger, clock, failed=told.append)
    scheduler.replace({"m": monitor()})
    ledger.broken = StoreError("the disk is full")
    scheduler.enter_due("m")
    assert told == [ledger.broken]
    ledger.broken = None
    scheduler.enter_all()
    assert ledger.ends() == ["04 10:00"]


def test_disabled_and_removed_monitors_are_left_alone(make):
    ledger = Ledger()
    scheduler = make(SetClock("2026-03-04T10:30"), ledger)
    scheduler.replace({"m": monitor().model_copy(update={"enabled": False})})
    scheduler.enter_due("m")
    scheduler.enter_due("gone")
    assert ledger.windows == {}
    assert scheduler.next_fires() == {}


def test_the_next_firing_is_known(make):
    scheduler = make(SetClock("2026-03-04T10:30"), Ledger())
    assert scheduler.next_fires() == {"m": at("2026-03-04T11:00")}


def test_a_replay_enters_every_window_and_stops_at_its_end():
    ledger = Ledger()
    clock = ReplayClock(at("2026-03-04T00:00"), 86_400, at("2026-03-04T12:00"))
    finished = threading.Event()
    scheduler = Scheduler(ledger, clock, entered=lambda: len(ledger.windows) == 13 and finished.set())
    assert clock.now() == at("2026-03-04T00:00")
    clock.begin()
    scheduler.start({"m": monitor()})
    try:
        assert finished.wait(60)
        scheduler.enter_all()
        assert scheduler.next_fires() == {}
    finally:
        scheduler.stop()
    assert ledger.ends() == [f"04 {hour:02}:00" for hour in range(13)]
    assert clock.now() == at("2026-03-04T12:00")


@pytest.mark.parametrize(
    ("speed", "until", "said"), [(0, "2026-03-05", "above 0"), (1, "2026-03-04", "after it starts")]
)
def test_a_replay_that_makes_no_sense(speed, until, said):
    with pytest.raises(ValueError, match=said):
        ReplayClock(at("2026-03-04"), speed, at(until))


def test_a_replay_past_the_end_of_the_calendar_stops():
    clock = ReplayClock(at("2026-03-04"), 1e18, at("2026-03-05"))
    clock.begin()
    assert clock.now() == at("2026-03-05")
