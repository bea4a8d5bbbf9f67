"""Which columns of live rows are kept."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.intake import PushSource
from drift_monitor.config.models import Columns
from drift_monitor.intake.layout import Layout
from drift_monitor.reference import build_reference
from drift_monitor.service.live_columns import kind_of_type, live_columns

ROWS = 200


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    table = {
        "t": [datetime(2026, 1, 1, n % 24, tzinfo=UTC) for n in range(ROWS)],
        "x": [float(n) for n in range(ROWS)],
        "code": [n % 7 for n in range(ROWS)],
        "c": ["ab"[n % 2] for n in range(ROWS)],
        "tail": ["t"] * ROWS,
        "late": [n % 2 == 0 for n in range(ROWS)],
        "p": [n / ROWS for n in range(ROWS)],
        "many": [["a"]] * ROWS,
    }
    pq.write_table(pa.table(table), folder / "training.parquet")
    columns = Columns(prediction="p", label="late", ignore=("tail",), kinds={"code": "categorical"})
    built = build_reference(
        folder / "training.parquet",
        folder / "r",
        columns=columns,
        timestamp="t",
        bucket=timedelta(hours=1),
        created=datetime.now(UTC),
    )
    return built.manifest


def found(manifest, **columns):
    return {c.name: (c.kind, c.feature) for c in live_columns(manifest, Columns(**columns))}


def test_all_that_a_training_set_needs_is_kept_and_features_are_known(manifest):
    assert found(manifest, prediction="p", label="late", ignore=("tail",), kinds={"code": "categorical"}) == {
        "t": ("datetime", False),
        "x": ("numeric", True),
        "code": ("categorical", True),
        "c": ("categorical", True),
        "tail": ("categorical", False),
        "late": ("boolean", False),
        "p": ("numeric", False),
    }


def test_an_id_and_a_label_that_the_training_data_lacks_are_kept_as_text(manifest):
    columns = found(manifest, prediction="p", label="truth", id="key")
    assert columns["truth"] == columns["key"] == ("categorical", False)


def test_an_id_is_text_whatever_it_was_in_training(manifest):
    assert found(manifest, prediction="p", id="x")["x"] == ("categorical", False)


def test_the_timestamp_is_the_first_column_and_positions_are_the_features(manifest):
    columns = live_columns(manifest, Columns(prediction="p", label="late", ignore=("tail",)))
    layout = Layout.of(PushSource(type="push", timestamp="t"), columns)
    assert layout.schema.names == ["t", "x", "code", "c", "tail", "late", "p"]
    assert layout.positions == ("x", "code", "c")
    assert Layout.of(PushSource(type="push", timestamp="t", positions=("c", "x")), columns).positions == ("c", "x")


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (pa.int8(), "numeric"),
        (pa.decimal128(9, 2), "numeric"),
        (pa.float16(), "numeric"),
        (pa.bool_(), "boolean"),
        (pa.large_string(), "categorical"),
        (pa.dictionary(pa.int32(), pa.string()), "categorical"),
        (pa.timestamp("ns", "Europe/Berlin"), "datetime"),
        (pa.date32(), "datetime"),
        (pa.list_(pa.float64()), None),
        (pa.struct([("a", pa.int8())]), None),
        (pa.binary(), None),
        (pa.dictionary(pa.int32(), pa.int64()), None),
    ],
)
def test_the_kind_that_the_name_of_a_type_implies(dtype, kind):
    assert kind_of_type(str(dtype)) == kind
