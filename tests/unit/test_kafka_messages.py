"""Messages of Kafka -> rows, without a broker."""

import io
import json
import sys
from datetime import UTC, datetime

import fastavro
import pytest

from drift_monitor.config.intake import KafkaSource
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import ConfigError
from drift_monitor.intake.kafka_child import consumer, decoder, read_messages
from drift_monitor.intake.layout import Layout, LiveColumn

COLUMNS = (LiveColumn(name="x", kind="numeric"), LiveColumn(name="c", kind="categorical"))
TIME = "2026-03-01T00:00:00Z"
SCHEMA = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "x", "type": ["null", "double"]},
        {"name": "c", "type": "string"},
    ],
}


class Message:
    def __init__(self, value, offset=0, sent=1_772_323_200_000):
        self.held, self.at, self.sent = value, offset, sent

    def value(self):
        return self.held

    def timestamp(self):
        return 1, self.sent

    def partition(self):
        return 0

    def offset(self):
        return self.at


def source(**settings):
    base = {"type": "kafka", "bootstrap": "localhost:1", "topic": "rows", "timestamp": "t"}
    return KafkaSource.model_validate(base | settings, strict=False)


def read(*values, **settings):
    """Rows, and the offsets of the messages that were refused."""
    config, refused = source(**settings), []
    layout = Layout(COLUMNS, "t", arrival=config.arrival)
    messages = [Message(value, offset) for offset, value in enumerate(values)]
    rows = read_messages(
        messages, layout, config, decoder(config), lambda m, e: refused.append((m.offset(), e.field))
    )
    return rows.batch.to_pylist(), refused


def as_json(**record):
    return json.dumps({"t": TIME, "x": 1.0, "c": "a"} | record).encode()


def avro(schema=SCHEMA, **record):
    stream = io.BytesIO()
    values = {"t": datetime(2026, 3, 1, tzinfo=UTC), "x": 1.0, "c": "a"} | record
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), values)
    return stream.getvalue()


def test_json_messages_are_rows():
    rows, refused = read(as_json(), as_json(x=None, c="b"))
    assert [(row["x"], row["c"]) for row in rows] == [(1.0, "a"), (None, "b")]
    assert rows[0]["t"] == datetime(2026, 3, 1, tzinfo=UTC)
    assert refused == []


def test_those_that_do_not_fit_are_left_out_one_by_one():
    rows, refused = read(as_json(), b"{", as_json(x="no"), as_json(t="no"), None, b"", as_json(c="b"), b"[]")
    assert [row["c"] for row in rows] == ["a", "b"]
    assert sorted(refused) == [(1, None), (2, "x"), (3, "t"), (5, None), (7, None)]


def test_a_message_is_one_row_whatever_its_lines():
    rows, refused = read(as_json(), json.dumps({"t": TIME, "c": "b"}, indent=1).encode(), as_json() + as_json())
    assert [row["c"] for row in rows] == ["a", "b"]
    assert refused == [(2, None)]


def test_nothing_but_messages_that_do_not_fit():
    assert read(*[b"{"] * 50) == ([], [(n, None) for n in range(50)])
    assert read(None, None) == ([], [])


def test_the_time_of_the_message_takes_the_place_of_a_missing_one():
    rows, _ = read(json.dumps({"x": 1}).encode(), as_json(t="2026-02-01T00:00:00Z"), arrival=True)
    assert [f"{row['t']:%m-%d %H}" for row in rows] == ["03-01 00", "02-01 00"]


def test_avro_messages_are_rows(tmp_path):
    (tmp_path / "row.avsc").write_text(json.dumps(SCHEMA))
    for settings in ({"avro_schema": json.dumps(SCHEMA)}, {"schema_file": tmp_path / "row.avsc"}):
        rows, refused = read(avro(), avro(x=None, c="b"), format="avro", **settings)
        assert [(row["x"], row["c"]) for row in rows] == [(1.0, "a"), (None, "b")]
        assert rows[0]["t"] == datetime(2026, 3, 1, tzinfo=UTC)
        assert refused == []


def test_a_header_before_the_record_is_skipped():
    rows, refused = read(b"\0\0\0\0\7" + avro(), format="avro", avro_schema=json.dumps(SCHEMA), header_bytes=5)
    assert [row["c"] for row in rows] == ["a"]
    assert refused == []


def test_what_is_no_record_of_the_schema_is_left_out():
    cut, more = avro()[:-1], avro() + b"x"
    rows, refused = read(avro(), cut, more, b"\xff" * 30, b"", format="avro", avro_schema=json.dumps(SCHEMA))
    assert len(rows) == 1
    assert [offset for offset, _ in refused] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("library", "read_with"), [("fastavro", decoder), ("confluent_kafka", lambda s: consumer("m", s))]
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch, library, read_with):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError) as caught:
        read_with(source(format="avro", avro_schema=json.dumps(SCHEMA)))
    assert library.replace("_", "-") in str(caught.value)
    assert "pip install 'drift-monitor[kafka]'" in str(caught.value)


@pytest.mark.parametrize("text", ["{", '{"type": "nothing"}', '{"type": "record"}'])
def test_a_schema_that_cannot_be_used_is_an_error(text):
    with pytest.raises(ConfigError, match="the Avro schema cannot be used"):
        decoder(source(format="avro", avro_schema=text))


def test_an_option_that_librdkafka_does_not_know_is_an_error():
    with pytest.raises(ConfigError, match=r"no\.such\.option"):
        consumer("m", source(options={"no.such.option": "1"}))


def test_an_option_may_be_in_a_file(tmp_path):
    (tmp_path / "secret").write_text("none-such\n")
    with pytest.raises(ConfigError, match=r"security\.protocol"):
        consumer("m", source(option_files={"security.protocol": tmp_path / "secret"}))
    with pytest.raises(ConfigError, match=r"option_files\.sasl\.password"):
        consumer("m", source(option_files={"sasl.password": tmp_path / "missing"}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": "avro"}, "exactly one of"),
        ({"format": "avro", "avro_schema": "{}", "schema_file": "f"}, "exactly one of"),
        ({"avro_schema": "{}"}, "goes with `format: avro` only"),
        ({"options": {"enable.auto.commit": "true"}}, "option enable.auto.commit is set by drift-monitor"),
        ({"option_files": {"bootstrap.servers": "f"}}, "option bootstrap.servers is set by drift-monitor"),
    ],
)
def test_settings_that_do_not_go_together(settings, said):
    with pytest.raises(ValueError, match=said):
        source(**settings)


def test_rows_are_kept_as_long_as_a_window_needs_them():
    settings = {"reference": "r", "schedule": {"every": "1h"}, "window": {"length": "7d", "delay": "1h"}}
    base = {"type": "push", "timestamp": "t"}
    with pytest.raises(ValueError, match=r"source\.keep is 1d, but a window with its delay needs 169h"):
        Monitor.model_validate(settings | {"source": base | {"keep": "1d"}}, strict=False)
    assert (
        Monitor.model_validate(settings | {"source": base | {"keep": "8d"}}, strict=False).source.keep is not None
    )
