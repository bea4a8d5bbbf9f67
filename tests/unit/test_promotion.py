"""The training data of a live model becomes the reference; the one before stays, and is compared for a while."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.actions.process import ProcessError
from drift_monitor.actions.promote import PromoteRequest, PromoteResult, run_promote
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import BadReferenceError, ConfigError
from drift_monitor.core.policy import Quality
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.reference import open_reference
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.promoting import promote
from drift_monitor.service.promotions import RECORD, promoted_folder, promotion_of
from drift_monitor.service.references import reference_of, training_of

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LIVE = Window(start=START + 20 * DAY, end=START + 21 * DAY)


def rows(days: int, seed: int, start: datetime, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * 500
    times = pa.array([start + DAY * (i / 500) for i in range(n)], pa.timestamp("us", "UTC"))
    return pa.table({"time": times, "speed": rng.normal(100 + shift, 10, n), "load": rng.gamma(2, 1, n)})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Training data, newer training data that is shifted, and live days like the newer."""
    pq.write_table(rows(14, 1, START), tmp_path / "training.parquet")
    pq.write_table(rows(14, 2, START + 6 * DAY, shift=20), tmp_path / "newer.parquet")
    pq.write_table(rows(4, 3, START + 20 * DAY, shift=20), tmp_path / "live.parquet")
    return tmp_path


def monitor(data: Path, reference: str = "training.parquet") -> Monitor:
    raw = {
        "reference": str(data / reference),
        "source": {"path": str(data / "live.parquet"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "alarm": {"false_alerts_per_month": None},
    }
    return Monitor.model_validate_json(json.dumps(raw))


def request(data: Path, training: str | Path = "newer.parquet", **values: object) -> PromoteRequest:
    fields = {
        "name": "m",
        "monitor": monitor(data),
        "state": data / "state",
        "training": data / training,
        "model_version": "2",
        "retraining": "ab12",
        "at": LIVE.start,
        "trial": 2 * DAY,
    }
    return PromoteRequest(**(fields | values))


def check(data: Path, window: Window = LIVE) -> CheckResult:
    return evaluate(CheckRequest(name="m", monitor=monitor(data), state=data / "state", window=window))


def now() -> datetime:
    return datetime(2024, 4, 1, tzinfo=UTC)


def test_the_new_reference_is_quiet_and_the_old_one_is_compared_for_a_while(data: Path) -> None:
    before = check(data)
    assert (before.verdict, before.previous) == (Outcome.DRIFT, None)
    result = promote(request(data))
    after = check(data)
    assert after.verdict is Outcome.OK
    assert after.reference is not None
    assert before.reference is not None
    assert (after.reference.version, after.reference.model_version) == (result.version, "2")
    assert after.previous is not None
    assert after.previous.reference == before.reference
    assert (after.previous.verdict, after.previous.score) == (Outcome.DRIFT, before.score)
    assert after.previous.drifted == ("speed",)
    later = Window(start=LIVE.start + 2 * DAY, end=LIVE.end + 2 * DAY)
    assert check(data, later).previous is None


def test_a_second_promotion_follows_the_first(data: Path) -> None:
    first = promote(request(data))
    pq.write_table(rows(14, 4, START + 7 * DAY, shift=30), data / "newest.parquet")
    second = promote(request(data, "newest.parquet", model_version="3", retraining="cd34"))
    record = promotion_of(data / "state", "m")
    assert record is not None
    assert (record.version, record.previous.name) == (second.version, first.version)
    assert open_reference(record.previous).manifest.model_version == "2"


def test_done_twice_is_done_once(data: Path) -> None:
    first = promote(request(data))
    record = (promoted_folder(data / "state", "m") / RECORD).read_bytes()
    (data / "newer.parquet").unlink()  # a repeat after a kill needs it no more
    assert promote(request(data, at=LIVE.end)) == first
    assert (promoted_folder(data / "state", "m") / RECORD).read_bytes() == record


def test_another_configured_reference_voids_the_promotion(data: Path) -> None:
    promote(request(data))
    assert training_of("m", monitor(data), data / "state", now=now) == data / "newer.parquet"
    pq.write_table(rows(14, 9, START), data / "training.parquet")
    found = reference_of("m", monitor(data), data / "state", now=now)
    assert found.manifest.model_version == ""
    assert check(data).previous is None  # and its trial is over, too
    assert training_of("m", monitor(data), data / "state", now=now) == data / "training.parquet"


def test_a_folder_without_its_rows_cannot_be_weighted(data: Path) -> None:
    reference = reference_of("m", monitor(data), data / "state", now=now)
    summary = monitor(data).model_copy(update={"reference": reference.folder})
    with pytest.raises(ConfigError, match=r"monitors\.m\.training: name the file of the training rows"):
        training_of("m", summary, data / "other", now=now)


@pytest.mark.parametrize("content", [b"", b"{", b'{"base": 1}'])
def test_a_damaged_record_is_no_reason_to_guess(data: Path, content: bytes) -> None:
    promote(request(data))
    (promoted_folder(data / "state", "m") / RECORD).write_bytes(content)
    with pytest.raises(BadReferenceError, match=r"promoted\.json cannot be read .* delete it to go back"):
        reference_of("m", monitor(data), data / "state", now=now)
    assert check(data).verdict is Outcome.CANNOT_JUDGE


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ("nothing.parquet", "no reference can be built: .*nothing.parquet"),
        ("damaged.parquet", "no reference can be built: .*damaged.parquet"),
        ("lacking.parquet", "lacks load, which the monitor watches"),
        (Path("newer.parquet"), "is no absolute path"),
    ],
)
def test_training_data_that_cannot_be_used_leaves_the_reference(
    data: Path, training: str | Path, sentence: str
) -> None:
    (data / "damaged.parquet").write_bytes(b"PAR1 not")
    pq.write_table(rows(14, 2, START).drop_columns("load"), data / "lacking.parquet")
    wanted = request(data, training)
    if isinstance(training, Path):
        wanted = wanted.model_copy(update={"training": training})
    with pytest.raises(BadReferenceError, match=sentence):
        promote(wanted)
    assert promotion_of(data / "state", "m") is None
    found = check(data)
    assert found.reference is not None
    assert found.reference.model_version == ""


def test_in_a_process_of_its_own(data: Path) -> None:
    result = run_promote(request(data), timedelta(minutes=5))
    assert isinstance(result, PromoteResult)
    with pytest.raises(ProcessError, match="the new reference of m failed: no reference can be built"):
        run_promote(request(data, "nothing.parquet", retraining="ef"), timedelta(minutes=5))
    with pytest.raises(ProcessError, match=r"was stopped: raise monitors\.m\.retrain\.deadline"):
        run_promote(
            request(data),
            timedelta(seconds=1),
            command=(sys.executable, "-c", "import time; time.sleep(60)"),
        )


def test_a_request_that_is_none_is_refused(data: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "drift_monitor.service.promoting"], input=b"{}", capture_output=True, check=False
    )
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1] == b"the request cannot be read: Field required"


def test_the_volume_of_a_retrainings_set_is_not_that_of_live_days(data: Path) -> None:
    newer = pq.read_table(data / "newer.parquet")
    pq.write_table(newer.take(np.arange(0, newer.num_rows, 20)), data / "thinned.parquet")
    as_configured = CheckRequest(
        name="m", monitor=monitor(data, "thinned.parquet"), state=data / "other", window=LIVE
    )
    (found,) = evaluate(as_configured).failed_quality
    assert found.message.startswith("500 rows; 3 to 250 are expected")  # of 25 a day, from a tenth to ten times
    promote(request(data, "thinned.parquet"))
    result = check(data)
    assert (result.verdict, result.failed_quality) == (Outcome.OK, ())


def test_a_volume_that_is_configured_holds_after_a_promotion(data: Path) -> None:
    promote(request(data))
    strict = monitor(data).model_copy(update={"quality": Quality(max_rows=100)})
    found = evaluate(CheckRequest(name="m", monitor=strict, state=data / "state", window=LIVE))
    assert [each.check for each in found.failed_quality] == ["volume"]
