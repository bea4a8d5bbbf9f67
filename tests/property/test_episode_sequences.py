"""What holds for every sequence of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.core.episode import Reason, Transition, step
from drift_monitor.core.policy import Alarm, Maintenance, Persistence
from drift_monitor.core.types import CheckResult, Episode, FeatureResult, Lane, Outcome, QualityResult, Window

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
LENGTH = 3 * HOUR  # windows overlap, as an hourly look at a longer window does
LANES: tuple[Lane, Lane] = ("drift", "quality")

Seen = tuple[Outcome, float, tuple[str, ...]]

windows = st.lists(
    st.tuples(
        st.sampled_from(
            [Outcome.DRIFT, Outcome.DRIFT, Outcome.OK, Outcome.BROKEN, Outcome.NO_DATA, Outcome.CANNOT_JUDGE]
        ),
        st.floats(1.01, 1e6),
        st.lists(st.sampled_from("abcdef"), min_size=1, unique=True).map(tuple),
    ),
    max_size=40,
)
alarms = st.builds(
    Alarm,
    persistence=st.integers(1, 5).flatmap(
        lambda of: st.builds(Persistence, hits=st.integers(1, of), of=st.just(of))
    ),
    cooldown=st.integers(0, 8).map(lambda h: h * HOUR),
    remind=st.none() | st.integers(1, 8).map(lambda h: h * HOUR),
)
stretches = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 10)).map(
        lambda t: Maintenance(start=START + t[0] * HOUR, end=START + (t[0] + t[1]) * HOUR)
    ),
    max_size=2,
)


def check(number: int, seen: Seen) -> CheckResult:
    verdict, score, features = seen
    end = START + (number + 1) * HOUR
    return CheckResult(
        monitor="m",
        window=Window(start=end - LENGTH, end=end),
        rows=1,
        verdict=verdict,
        reason="",
        score=score if verdict is Outcome.DRIFT else 0.1,
        threshold=1.0,
        promise="",
        features=tuple(FeatureResult(name=n, kind="numeric", drifted=verdict is Outcome.DRIFT) for n in features),
        quality=tuple(
            QualityResult(check="null_rate", feature=n, failed=verdict is Outcome.BROKEN, message="")
            for n in features
        ),
    )


def replay(
    lane: Lane, seen: Sequence[Seen], alarm: Alarm, maintenance: Sequence[Maintenance] = ()
) -> list[tuple[CheckResult, Transition]]:
    previous: Episode | None = None
    steps: list[tuple[CheckResult, Transition]] = []
    for number, one in enumerate(seen):
        result = check(number, one)
        history = [r.verdict for r, _ in reversed(steps)]
        transition = step(lane, previous, history, result, alarm, maintenance)
        if transition.changed:
            previous = transition.episode
        steps.append((result, transition))
    return steps


both = st.sampled_from(LANES)


@given(lane=both, seen=windows, alarm=alarms, maintenance=stretches)
def test_opened_and_resolved_alternate_and_one_episode_is_open_at_most(
    lane: Lane, seen: list[Seen], alarm: Alarm, maintenance: list[Maintenance]
) -> None:
    is_open: str | None = None
    ids = []
    for _, t in replay(lane, seen, alarm, maintenance):
        if t.reason is Reason.OPENED:
            assert is_open is None
            assert t.episode is not None
            is_open = t.episode.id
            ids.append(is_open)
        elif t.reason is Reason.RESOLVED:
            assert t.episode is not None
            assert (t.episode.id, t.episode.closed) == (is_open, t.episode.updated)
            is_open = None
        else:
            assert (t.episode.id if t.episode else None) == is_open
        assert t.episode is None or t.episode.lane == lane
    assert len(set(ids)) == len(ids)


@given(lane=both, seen=windows, alarm=alarms, maintenance=stretches)
def test_a_message_goes_with_its_reasons_and_never_out_of_maintenance(
    lane: Lane, seen: list[Seen], alarm: Alarm, maintenance: list[Maintenance]
) -> None:
    speaking = {Reason.OPENED, Reason.ESCALATED, Reason.REMINDED, Reason.RESOLVED}
    for result, t in replay(lane, seen, alarm, maintenance):
        assert (t.message is not None) is (t.reason in speaking)
        assert t.message is None or t.changed
        if any(result.window.start < m.end and m.start < result.window.end for m in maintenance):
            assert t.message is None
            assert not t.changed


@given(lane=both, seen=windows, alarm=alarms, maintenance=stretches)
def test_a_replay_gives_the_same_bytes_and_every_prefix_its_own(
    lane: Lane, seen: list[Seen], alarm: Alarm, maintenance: list[Maintenance]
) -> None:
    whole = [t.model_dump_json() for _, t in replay(lane, seen, alarm, maintenance)]
    assert whole == [t.model_dump_json() for _, t in replay(lane, list(seen), alarm, maintenance)]
    half = len(seen) // 2
    assert whole[:half] == [t.model_dump_json() for _, t in replay(lane, seen[:half], alarm, maintenance)]


@given(lane=both, seen=windows, alarm=alarms, data=st.data())
def test_a_window_that_comes_again_changes_nothing(
    lane: Lane, seen: list[Seen], alarm: Alarm, data: st.DataObject
) -> None:
    steps = replay(lane, seen, alarm)
    episodes = [t.episode for _, t in steps if t.changed and t.episode]
    if not episodes:
        return
    newest = episodes[-1]
    upto = int((newest.updated - START) / HOUR)
    again = check(data.draw(st.integers(0, upto - 1)), data.draw(windows.filter(bool))[0])
    repeated = step(lane, newest, [], again, alarm)
    assert (repeated.reason, repeated.changed, repeated.message) == (Reason.LATE, False, None)


@given(lane=both, seen=windows, alarm=alarms)
def test_persistence_and_cooldown_hold(lane: Lane, seen: list[Seen], alarm: Alarm) -> None:
    failing = Outcome.DRIFT if lane == "drift" else Outcome.BROKEN
    steps = replay(lane, seen, alarm)
    closed: datetime | None = None
    for number, (result, t) in enumerate(steps):
        last = [r.verdict for r, _ in steps[max(0, number - alarm.persistence.of + 1) : number + 1]]
        hits = last.count(failing)
        if t.reason is Reason.OPENED:
            assert result.verdict is failing
            assert hits >= alarm.persistence.hits
            assert closed is None or result.window.end >= closed + alarm.cooldown
        if t.reason is Reason.RESOLVED:
            assert hits < alarm.persistence.hits
            closed = result.window.end
        if t.reason is Reason.PENDING:
            assert hits < alarm.persistence.hits


@given(lane=both, seen=windows, alarm=alarms)
@settings(max_examples=50)
def test_windows_that_cannot_be_judged_may_come_between_without_a_message(
    lane: Lane, seen: list[Seen], alarm: Alarm
) -> None:
    for result, t in replay(lane, seen, alarm):
        if result.verdict in {Outcome.NO_DATA, Outcome.CANNOT_JUDGE}:
            assert (t.reason, t.changed, t.message) == (Reason.HELD, False, None)
