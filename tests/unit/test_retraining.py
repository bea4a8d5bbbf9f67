"""What may follow what, what holds a retraining back, and when one is given up."""

from datetime import UTC, datetime, timedelta

import pytest

from drift_monitor.core.retraining import (
    IN_FLIGHT,
    NEXT,
    RAILS,
    Event,
    Rails,
    Retraining,
    RetrainingError,
    State,
    advance,
    due_to_lapse,
    held_back,
    in_vain,
    retraining_id,
)
from drift_monitor.core.types import CheckResult, Episode, Outcome, QualityResult, Window

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOW = Window(start=NOW - DAY, end=NOW)
EPISODE = Episode(
    id="e", monitor="m", lane="drift", opened=NOW, updated=NOW, reminded=NOW, worst=2, features=("x",)
)
RESULT = CheckResult(monitor="m", window=WINDOW, rows=5000, verdict=Outcome.DRIFT, reason="x moved", promise="p")
RAILED = Rails(cooldown=7 * DAY, per_month=3, min_rows=1000, trial=14 * DAY, give_up=2)


def one(state=State.PREPARING, **values):
    defaults = {
        "id": retraining_id("e"),
        "monitor": "m",
        "episode": "e",
        "opened": NOW,
        "window": WINDOW,
        "reason": "x moved",
        "receiver": "pipeline",
        "mode": "propose",
        "created": NOW,
        "changed": NOW,
        "requested": NOW if state not in {State.PREPARING, State.WITHHELD, State.PROPOSED} else None,
        "model_version": "2" if state in {State.TRAINED, State.LIVE, State.PROMOTED} else "",
    }
    return Retraining(state=state, **(defaults | values))


def ended(n, state=State.PROMOTED, *, ago, **values):
    """A retraining of another episode that ended some days ago."""
    then = NOW - ago * DAY
    defaults = {"opened": then - DAY, "changed": then, "requested": then - DAY, "promoted_at": then}
    return one(state, id=retraining_id(f"e{n}"), episode=f"e{n}", **(defaults | values))


def test_the_usual_course():
    events = (
        (Event.PREPARED, State.PROPOSED, {"labelled": 0.9}),
        (Event.APPROVE, State.APPROVED, {"decided_by": "ada"}),
        (Event.DELIVERED, State.SENT, {}),
        (Event.STARTED, State.RUNNING, {}),
        (Event.SUCCEEDED, State.TRAINED, {"model_version": "2", "model_metrics": {"rmse": 3.5}}),
        (Event.LIVE, State.LIVE, {}),
        (Event.PROMOTED, State.PROMOTED, {"reference": "2026-03-04-abc"}),
    )
    found = one()
    for n, (event, state, news) in enumerate(events, 1):
        found = advance(found, event, NOW + n * DAY, **news)
        assert (found.state, found.changed) == (state, NOW + n * DAY)
    assert (found.decided_by, found.requested, found.labelled) == ("ada", NOW + 2 * DAY, 0.9)
    assert (found.model_version, found.model_metrics) == ("2", {"rmse": 3.5})
    assert not found.in_flight


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_an_event_leads_where_the_table_says_or_changes_nothing(state, event):
    before = one(state)
    told = {"model_version": "2" if event in {"succeeded", "live"} else None}
    never_asked = before.requested is None and state in {State.FAILED, State.EXPIRED}
    if event in NEXT[state] and not never_asked:
        assert advance(before, event, NOW + DAY, **told).state is NEXT[state][event]
        return
    try:
        after = advance(before, event, NOW + DAY, **told)
    except RetrainingError:
        after = before
    assert after is before


def test_what_is_reported_twice_changes_nothing():
    running = one(State.RUNNING)
    assert advance(running, Event.STARTED, NOW + DAY) is running
    assert advance(running, Event.DELIVERED, NOW + DAY) is running
    trained = advance(running, Event.SUCCEEDED, NOW + DAY, model_version="2")
    assert advance(trained, Event.SUCCEEDED, NOW + 2 * DAY, model_version="2") is trained
    assert advance(trained, Event.STARTED, NOW + 2 * DAY) is trained


def test_a_report_may_overtake_the_receipt():
    running = advance(one(State.APPROVED), Event.STARTED, NOW)
    assert running.state is State.RUNNING
    assert advance(running, Event.DELIVERED, NOW) is running


def test_a_late_report_counts_where_a_pipeline_was_asked():
    assert advance(one(State.EXPIRED), Event.SUCCEEDED, NOW, model_version="2").state is State.TRAINED
    assert advance(one(State.FAILED), Event.STARTED, NOW).state is State.RUNNING
    with pytest.raises(RetrainingError, match="is expired: succeeded cannot follow"):
        advance(one(State.EXPIRED, requested=None), Event.SUCCEEDED, NOW, model_version="2")


def test_what_is_live_is_what_was_trained():
    trained = one(State.TRAINED, model_version="2")
    with pytest.raises(RetrainingError, match="trained version '2', so version '3', which is live, is not of it"):
        advance(trained, Event.LIVE, NOW, model_version="3")
    assert advance(trained, Event.LIVE, NOW).model_version == "2"
    with pytest.raises(RetrainingError, match="say which `version`"):
        advance(one(State.RUNNING), Event.LIVE, NOW)


def test_a_promotion_that_failed_is_tried_again_when_there_is_news():
    live = one(State.LIVE, settled=True, note="no file")
    assert advance(live, Event.LIVE, NOW + DAY) is live
    again = advance(live, Event.LIVE, NOW + DAY, trained_on="/data/train.parquet")
    assert (again.settled, again.in_flight) == (False, True)


def test_nothing_holds_a_first_retraining_back():
    assert held_back(EPISODE, RESULT, [], RAILED, NOW, quality=None) == {}


BROKEN = Episode(
    id="q", monitor="m", lane="quality", opened=NOW, updated=NOW, reminded=NOW, worst=1, features=("x",)
)
FAILED = RESULT.model_copy(update={"quality": (QualityResult(check="null_rate", failed=True, message="nulls"),)})


@pytest.mark.parametrize(
    ("rail", "sentence", "changes"),
    [
        ("quality", "broken since 2026-03-04 12:00Z: x", {"quality": BROKEN}),
        ("quality", "fails 1 checks", {"result": FAILED}),
        ("rows", "has 10 rows, a retraining needs 1,000", {"result": RESULT.model_copy(update={"rows": 10})}),
        ("in_flight", "is sent: one at a time", {"ledger": [ended(1, State.SENT, ago=20)]}),
        ("in_flight", "is live: one at a time", {"ledger": [ended(1, State.LIVE, ago=20)]}),
        ("cooldown", "less than 7 days ago", {"ledger": [ended(1, ago=3, promoted_at=NOW - 100 * DAY)]}),
        ("budget", "3 retrainings in 30 days", {"ledger": [ended(n, ago=20 + n, opened=NOW) for n in range(3)]}),
        ("breaker", "stayed after 2 retrainings", {"ledger": [ended(2, ago=8), ended(1, ago=16)]}),
    ],
)
def test_each_guard_rail_holds_back_by_itself(rail, sentence, changes):
    values = {"result": RESULT, "ledger": [], "quality": None} | changes
    if rail == "budget":  # long ago as far as the drift is concerned
        values["ledger"] = [r.model_copy(update={"promoted_at": NOW - 99 * DAY}) for r in values["ledger"]]
    found = held_back(EPISODE, values["result"], values["ledger"], RAILED, NOW, quality=values["quality"])
    assert list(found) == [rail]
    assert sentence in found[rail]
    assert rail in RAILS


def test_a_closed_quality_episode_holds_nothing_back():
    closed = BROKEN.model_copy(update={"closed": NOW})
    assert held_back(EPISODE, RESULT, [], RAILED, NOW, quality=closed) == {}


def test_proposals_that_came_to_nothing_count_neither_for_cooldown_nor_budget():
    rejected = [ended(n, State.REJECTED, ago=1, requested=None) for n in range(9)]
    assert held_back(EPISODE, RESULT, rejected, RAILED, NOW, quality=None) == {}


def test_drift_soon_after_a_promotion_counts_against_it():
    assert in_vain(NOW, [ended(1, ago=13)], 14 * DAY) == 1
    assert in_vain(NOW, [ended(1, ago=15)], 14 * DAY) == 0
    assert in_vain(NOW, [ended(2, ago=10), ended(1, ago=20)], 14 * DAY) == 2  # 11 days back and 9 more
    assert in_vain(NOW, [ended(2, ago=10), ended(1, ago=60)], 14 * DAY) == 1
    failed = ended(3, State.FAILED, ago=2, promoted_at=None)
    assert in_vain(NOW, [failed], 14 * DAY) == 1


def test_a_person_who_asks_starts_the_count_anew():
    by_hand = ended(2, ago=5, mode="by hand")
    assert in_vain(NOW, [by_hand, ended(1, ago=10), ended(0, ago=15)], 14 * DAY) == 1


@pytest.mark.parametrize(
    ("state", "days", "sentence"),
    [
        (State.PROPOSED, 7, "nobody decided within 7 days"),
        (State.SENT, 1, "said nothing for 24 hours"),
        (State.RUNNING, 1, "said nothing for 24 hours"),
        (State.TRAINED, 7, "did not go live within 7 days"),
    ],
)
def test_who_is_silent_for_too_long_is_given_up(state, days, sentence):
    limits = {"expires": 7 * DAY, "timeout": DAY}
    assert due_to_lapse(one(state), NOW + days * DAY - timedelta(seconds=1), **limits) == ""
    assert sentence in due_to_lapse(one(state), NOW + days * DAY, **limits)


@pytest.mark.parametrize("state", [State.PREPARING, State.APPROVED, State.LIVE, State.PROMOTED, State.FAILED])
def test_what_waits_for_nobody_does_not_lapse(state):
    assert due_to_lapse(one(state), NOW + 999 * DAY, expires=DAY, timeout=DAY) == ""


def test_every_state_has_its_row_and_leads_out_of_flight():
    assert NEXT.keys() == set(State)
    reachable = {state: set(NEXT[state].values()) for state in State}
    for state in IN_FLIGHT:
        seen, todo = set(), [state]
        while todo:
            seen.add(here := todo.pop())
            todo += reachable[here] - seen
        assert seen - IN_FLIGHT
