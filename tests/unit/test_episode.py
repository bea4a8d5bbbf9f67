"""Every reason of an episode's step, in tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from drift_monitor.core.episode import Reason, Transition, episode_id, step
from drift_monitor.core.policy import Alarm, Maintenance
from drift_monitor.core.types import (
    CheckResult,
    Episode,
    FeatureResult,
    Lane,
    Outcome,
    QualityResult,
    Window,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
OUTCOMES = {
    "D": Outcome.DRIFT,
    "O": Outcome.OK,
    "B": Outcome.BROKEN,
    "N": Outcome.NO_DATA,
    "C": Outcome.CANNOT_JUDGE,
}


def check(verdict: Outcome, hour: int, *, score: float = 2.0, features: tuple[str, ...] = ("x",)) -> CheckResult:
    """The window that ends `hour` hours after the start."""
    drifted = verdict is Outcome.DRIFT
    broken = features if verdict is Outcome.BROKEN else ()
    return CheckResult(
        monitor="m",
        window=Window(start=START + (hour - 1) * HOUR, end=START + hour * HOUR),
        rows=1000,
        verdict=verdict,
        reason="as the test says",
        score=score if drifted else 0.5,
        threshold=1.0,
        promise="none",
        features=tuple(FeatureResult(name=n, kind="numeric", drifted=drifted) for n in features),
        quality=tuple(QualityResult(check="null_rate", feature=n, failed=True, message="") for n in broken),
    )


def replay(
    verdicts: str,
    alarm: Alarm,
    *,
    lane: Lane = "drift",
    maintenance: tuple[Maintenance, ...] = (),
    scores: dict[int, float] | None = None,
) -> list[Transition]:
    """Run a monitor over windows, one an hour; scores by hour replace the score of 2."""
    previous: Episode | None = None
    seen: list[Outcome] = []
    steps = []
    for hour, letter in enumerate(verdicts, 1):
        result = check(OUTCOMES[letter], hour, score=(scores or {}).get(hour, 2.0))
        transition = step(lane, previous, seen[::-1][: alarm.persistence.of - 1], result, alarm, maintenance)
        if transition.changed:
            previous = transition.episode
        seen.append(result.verdict)
        steps.append(transition)
    return steps


def policy(**fields: Any) -> Alarm:
    return Alarm.model_validate_json(Alarm(**fields).model_dump_json())


ONE = policy()
TWO_OF_THREE = policy(persistence={"hits": 2, "of": 3})


@pytest.mark.parametrize(
    ("verdicts", "alarm", "reasons"),
    [
        ("O", ONE, "quiet"),
        ("OD", ONE, "quiet opened"),
        ("DO", ONE, "opened resolved"),
        ("DDO", ONE, "opened continues resolved"),
        ("DODO", ONE, "opened resolved opened resolved"),
        # not judged: nothing changes
        ("NCB", ONE, "held held held"),
        ("DNO", ONE, "opened held resolved"),
        ("DBD", ONE, "opened held continues"),
        # persistence 2 of 3
        ("D", TWO_OF_THREE, "pending"),
        ("DOD", TWO_OF_THREE, "pending quiet opened"),
        ("DOOD", TWO_OF_THREE, "pending quiet quiet pending"),
        ("DND", TWO_OF_THREE, "pending held opened"),
        ("DNND", TWO_OF_THREE, "pending held held pending"),
        ("DDOO", TWO_OF_THREE, "pending opened continues resolved"),
        ("DDOD", TWO_OF_THREE, "pending opened continues continues"),
        ("DDNNDO", TWO_OF_THREE, "pending opened held held continues resolved"),
        # cooldown of 3 h after a close
        ("DODDDD", policy(cooldown=3 * HOUR), "opened resolved cooldown cooldown opened continues"),
        ("DOOOOD", policy(cooldown=3 * HOUR), "opened resolved quiet quiet quiet opened"),
        # reminders every 2 h since the last message
        ("DDDDDO", policy(remind=2 * HOUR), "opened continues reminded continues reminded resolved"),
        ("DNNND", policy(remind=2 * HOUR), "opened held held held reminded"),
    ],
)
def test_reasons(verdicts: str, alarm: Alarm, reasons: str) -> None:
    assert [t.reason.value for t in replay(verdicts, alarm)] == reasons.split()


@pytest.mark.parametrize(
    ("verdicts", "reasons"),
    [
        ("BO", "opened resolved"),
        ("BD", "opened resolved"),  # a drifted window passed its quality checks
        ("BNC", "opened held held"),
        ("DOB", "quiet quiet opened"),
    ],
)
def test_reasons_of_the_quality_lane(verdicts: str, reasons: str) -> None:
    assert [t.reason.value for t in replay(verdicts, ONE, lane="quality")] == reasons.split()


@pytest.mark.parametrize(
    ("scores", "reasons"),
    [
        ({1: 2.0, 2: 3.0, 3: 3.1}, "opened continues escalated"),  # more than 1.5 x 2
        ({1: 2.0, 2: 2.6, 3: 3.2}, "opened continues escalated"),  # slowly, but since the last message
        ({1: 2.0, 2: 4.0, 3: 5.9, 4: 6.1}, "opened escalated continues escalated"),
        ({1: 4.0, 2: 1.1, 3: 5.9}, "opened continues continues"),
    ],
)
def test_escalation_compares_with_the_last_message(scores: dict[int, float], reasons: str) -> None:
    steps = replay("D" * len(scores), ONE, scores=scores)
    assert [t.reason.value for t in steps] == reasons.split()


def test_a_reminder_counts_from_the_last_message_of_any_kind() -> None:
    steps = replay("DDDDD", policy(remind=2 * HOUR), scores={1: 2.0, 2: 4.0, 3: 4.0, 4: 4.0, 5: 4.0})
    assert [t.reason.value for t in steps] == ["opened", "escalated", "continues", "reminded", "continues"]


def test_a_feature_that_no_message_has_named_escalates_when_it_leads() -> None:
    blame = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("c", "a"), ("b",)]
    episode, reasons = None, []
    for hour, features in enumerate(blame, start=1):
        moved = step("drift", episode, [], check(Outcome.DRIFT, hour, features=features), ONE)
        episode = moved.episode
        reasons.append(moved.reason.value)
    assert reasons == ["opened", "continues", "continues", "escalated", "continues", "continues"]
    assert episode is not None
    assert episode.told == ("a", "b", "c")


def test_a_milder_reminder_does_not_lower_the_bar_of_escalation() -> None:
    steps = replay("DDD", policy(remind=HOUR), scores={1: 4.0, 2: 1.1, 3: 5.9})
    assert [t.reason.value for t in steps] == ["opened", "reminded", "reminded"]


def stretch(start: float, end: float) -> Maintenance:
    return Maintenance(start=START + start * HOUR, end=START + end * HOUR, reason="deployment")


@pytest.mark.parametrize(
    ("verdicts", "reasons"),
    [
        ("ODDO", "quiet maintenance maintenance quiet"),
        ("ODDD", "quiet maintenance maintenance opened"),  # still failing: nothing is lost
        ("DODO", "opened maintenance maintenance resolved"),  # stays open, so that its end is told
        ("DOOO", "opened maintenance maintenance resolved"),
        ("ONNO", "quiet held held quiet"),
        ("OOOO", "quiet quiet quiet quiet"),
    ],
)
def test_maintenance_from_the_second_to_the_third_window(verdicts: str, reasons: str) -> None:
    steps = replay(verdicts, ONE, maintenance=(stretch(1.5, 2.5),))
    assert [t.reason.value for t in steps] == reasons.split()


def test_maintenance_is_a_matter_of_the_window_and_its_ends_do_not_count() -> None:
    steps = replay("DDD", ONE, maintenance=(stretch(1, 2),))
    assert [t.reason.value for t in steps] == ["opened", "maintenance", "continues"]


def test_what_failed_in_maintenance_counts_for_persistence_afterwards() -> None:
    steps = replay("DDD", TWO_OF_THREE, maintenance=(stretch(0, 2),))
    assert [t.reason.value for t in steps] == ["maintenance", "maintenance", "opened"]


@pytest.mark.parametrize("hour", [1, 4, 5])
@pytest.mark.parametrize("verdict", list(Outcome))
def test_a_window_no_newer_than_the_last_changes_nothing(hour: int, verdict: Outcome) -> None:
    previous = replay("DDDDD", ONE)[-1].episode
    assert previous is not None
    late = step("drift", previous, [], check(verdict, hour, score=99.0), ONE)
    assert (late.reason, late.changed, late.message, late.episode) == (Reason.LATE, False, None, previous)
    closed = replay("DDDDO", ONE)[-1].episode
    after = step("drift", closed, [], check(verdict, hour), ONE)
    assert (after.reason, after.changed, after.episode) == (Reason.LATE, False, None)


def test_an_opened_episode_holds_what_opened_it() -> None:
    result = check(Outcome.DRIFT, 7, score=3.5, features=("b", "a"))
    opened = step("drift", None, [], result, ONE)
    assert opened.message == "drift_monitor.drift.opened"
    assert opened.changed
    assert opened.episode == Episode(
        id=episode_id("m", "drift", result.window),
        monitor="m",
        lane="drift",
        opened=result.window.end,
        updated=result.window.end,
        reminded=result.window.end,
        worst=3.5,
        features=("b", "a"),
        told=("b", "a"),
        since={"b": result.window.end, "a": result.window.end},
    )


def test_an_episode_follows_its_windows_and_keeps_its_id() -> None:
    steps = replay("DDDO", ONE, scores={1: 2.0, 2: 9.0, 3: 1.5})
    episodes = [t.episode for t in steps if t.episode is not None]
    assert len({e.id for e in episodes}) == 1
    assert [e.worst for e in episodes] == [2.0, 9.0, 9.0, 9.0]
    assert [e.updated for e in episodes] == [START + h * HOUR for h in (1, 2, 3, 4)]
    assert [e.reminded for e in episodes] == [START + h * HOUR for h in (1, 2, 2, 2)]
    assert [e.closed for e in episodes] == [None, None, None, START + 4 * HOUR]
    assert episodes[-1].features == ("x",)


def test_messages_name_the_lane_and_the_reason() -> None:
    drift = replay("DDDO", policy(remind=2 * HOUR), scores={2: 9.0})
    assert [t.message for t in drift] == [
        "drift_monitor.drift.opened",
        "drift_monitor.drift.escalated",
        None,
        "drift_monitor.drift.resolved",
    ]
    quality = replay("BBBO", policy(remind=2 * HOUR), lane="quality")
    assert [t.message for t in quality] == [
        "drift_monitor.data_quality.opened",
        None,
        "drift_monitor.data_quality.reminded",
        "drift_monitor.data_quality.resolved",
    ]


def test_the_quality_lane_escalates_by_the_number_of_failed_expectations() -> None:
    opened = step("quality", None, [], check(Outcome.BROKEN, 1, features=("x", "y")), ONE).episode
    assert opened is not None
    assert (opened.worst, opened.features) == (2.0, ("x", "y"))
    three = step("quality", opened, [], check(Outcome.BROKEN, 2, features=("x", "y", "z")), ONE)
    four = step("quality", opened, [], check(Outcome.BROKEN, 2, features=("x", "y", "z", "w")), ONE)
    assert (three.reason, four.reason) == (Reason.CONTINUES, Reason.ESCALATED)


def test_a_whole_window_check_is_blamed_by_its_own_name() -> None:
    result = check(Outcome.BROKEN, 1).model_copy(
        update={"quality": (QualityResult(check="volume", failed=True, message=""),)}
    )
    opened = step("quality", None, [], result, ONE).episode
    assert opened is not None
    assert opened.features == ("volume",)


def test_ids_differ_by_monitor_lane_and_window_and_by_nothing_else() -> None:
    first, second = check(Outcome.OK, 1).window, check(Outcome.OK, 2).window
    ids = {
        episode_id("m", "drift", first),
        episode_id("n", "drift", first),
        episode_id("m", "quality", first),
        episode_id("m", "drift", second),
    }
    assert len(ids) == 4
    assert episode_id("m", "drift", Window(start=START - HOUR, end=first.end)) in ids
    assert all(len(i) == 32 and int(i, 16) for i in ids)


def test_history_beyond_the_persistence_is_not_looked_at() -> None:
    long_ago = [Outcome.OK, Outcome.OK, Outcome.DRIFT, Outcome.DRIFT]
    assert step("drift", None, long_ago, check(Outcome.DRIFT, 9), TWO_OF_THREE).reason is Reason.PENDING


def test_every_reason_is_in_these_tables() -> None:
    seen = {
        t.reason
        for verdicts, alarm, maintenance in (
            ("DDDDOODO", policy(remind=2 * HOUR, cooldown=4 * HOUR), ()),
            ("ODND", TWO_OF_THREE, (stretch(1.5, 1.8),)),
            ("ODO", TWO_OF_THREE, ()),
        )
        for t in replay(verdicts, alarm, maintenance=maintenance, scores={4: 9.0})
    }
    assert seen == set(Reason) - {Reason.LATE}
