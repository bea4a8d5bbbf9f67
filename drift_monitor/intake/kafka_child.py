"""The child that reads a monitor's Kafka topic: `python -m drift_monitor.intake.kafka_child`.

Messages and the offsets behind them go to the journal in one frame: at a start it goes on where the newest frame
ends, and what the brokers know of this reader is not asked.
"""

from __future__ import annotations

import io
import json
import queue
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from drift_monitor.config.intake import KafkaSource
from drift_monitor.config.models import Monitor
from drift_monitor.core.errors import ConfigError, DriftMonitorError, SourceError
from drift_monitor.intake.child import Files, Link, begin, figures
from drift_monitor.intake.layout import Layout, LiveColumn
from drift_monitor.intake.refused import RefusedError
from drift_monitor.intake.rows import Rows, from_json_lines, from_records, joined, read_object
from drift_monitor.intake.spool import Offsets
from drift_monitor.intake.taking import spool_of

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

_TOGETHER: Final = 10_000  # messages that are written with one wait
_BYTES: Final = 16 * 2**20  # of messages that are read ahead
_WAIT: Final = 0.5  # seconds for the first of them
_REPORT: Final = 2.0  # seconds between two reports
_LOOK: Final = 60.0  # seconds between two looks for new partitions
_PATIENCE: Final = 30.0  # seconds for the brokers to answer at the start
INSTALL: Final = "pip install 'drift-monitor[kafka]'"
Decode = Callable[[bytes], dict[str, Any]]


class KafkaChild:
    """Reads one topic until the daemon ends.

    Args:
        link: to the daemon.
        name: of the monitor.
        monitor: its configuration.
        columns: that are kept.

    Raises:
        DriftMonitorError: a library is missing, a setting is wrong, or no broker answers.
        OSError: the spool or a file cannot be read or written.
    """

    def __init__(self, link: Link, name: str, monitor: Monitor, columns: list[LiveColumn]) -> None:
        source = monitor.source
        if not isinstance(source, KafkaSource):
            raise ConfigError([f"monitors.{name}.source is no Kafka source"])
        self._link, self._name, self._source = link, name, source
        self._decode = decoder(source)
        self._consumer = consumer(name, source)
        self._spool = spool_of(monitor, columns)
        self._files = Files()
        self._files.look_after([self._spool])
        self._counts: Counter[str] = Counter()
        self._newest: float | None = None
        self._partitions: set[int] = set()
        self._next_report = self._next_look = 0.0

    def run(self) -> None:
        """Read until the daemon says stop or is gone.

        Raises:
            DriftMonitorError: the topic cannot be read.
            OSError: the disk failed in a way after which only a new start knows what is on it.
        """
        while self._heed():
            self._find_partitions()
            if self._spool.is_full:
                time.sleep(_WAIT)
            elif self._partitions:
                self._take(self._consumer.consume(_TOGETHER, _WAIT))
            if self._spool.is_due and not self._spool.is_full and (seal := self._spool.roll()) is not None:
                self._files.seal(seal)
            self._report()
        self._consumer.close()
        self._files.stop()
        self._spool.close()

    def _heed(self) -> bool:
        """Do what the daemon asks for; whether to go on."""
        try:
            while (frame := self._link.inbox.get_nowait()) is not None:
                header, _ = frame
                if header["do"] == "flush":
                    answer = {"do": "answer", "id": header["id"], "status": HTTPStatus.OK, "body": {}}
                    seal = self._spool.roll() or (lambda: None)
                    self._files.seal(seal, lambda answer=answer: self._link.send(answer))  # type: ignore[misc]
        except queue.Empty:
            return True
        return False

    def _find_partitions(self) -> None:
        """Read every partition that there is, each from where its newest row on disk is from."""
        from confluent_kafka import KafkaException, TopicPartition  # noqa: PLC0415

        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + (_LOOK if self._partitions else _WAIT)
        topic = self._source.topic
        try:
            found = self._consumer.list_topics(topic, timeout=_PATIENCE).topics[topic]
        except KafkaException as error:
            if not self._partitions:
                raise SourceError(f"no broker of {self._source.bootstrap!r} answers: {error}") from error
            return
        if not set(found.partitions) - self._partitions:
            if not found.partitions:
                self._say(f"there is no topic {topic!r} yet ({found.error})")
            return
        try:
            new = {number: self._begin_of(number) for number in sorted(set(found.partitions) - self._partitions)}
        except KafkaException as error:
            self._say(f"{topic}: {error}")
            return
        self._consumer.incremental_assign([TopicPartition(topic, *each) for each in new.items()])
        self._partitions |= set(new)

    def _begin_of(self, partition: int) -> int:
        """Where to begin in a partition that was not read yet; noted if it is not the beginning."""
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition  # noqa: PLC0415

        topic = self._source.topic
        known = self._spool.offsets.get(topic, {})
        if str(partition) in known:
            return known[str(partition)]
        if self._source.start == "earliest":
            return OFFSET_BEGINNING
        _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_PATIENCE)
        self._spool.append(None, offsets={**self._spool.offsets, topic: {**known, str(partition): end}})
        self._spool.sync()
        return int(end)

    def _take(self, messages: Sequence[Message]) -> None:
        """Write messages and where they end, and wait for the disk."""
        whole = [message for message in messages if self._is_message(message)]
        if not whole:
            return
        topic = self._source.topic
        ends = dict(self._spool.offsets.get(topic, {}))
        for message in whole:
            ends[str(message.partition())] = int(message.offset() or 0) + 1
        offsets: Offsets = {**self._spool.offsets, topic: ends}
        rows = read_messages(whole, self._spool.layout, self._source, self._decode, self._refuse)
        self._spool.append(rows.batch, offsets=offsets)
        self._spool.sync()
        self._counts["rows"] += rows.batch.num_rows
        if rows.batch.num_rows:
            self._newest = time.time()

    def _is_message(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.fatal():
            raise SourceError(f"the topic {self._source.topic!r} cannot be read any more: {error.str()}")
        self._say(f"{self._source.topic}: {error.str()}")
        return False

    def _refuse(self, message: Message, error: RefusedError) -> None:
        if not self._counts["unfit"]:
            self._say(f"{self._source.topic}, partition {message.partition()}, offset {message.offset()}: {error}")
        self._counts["unfit"] += 1

    def _lag(self) -> dict[str, int]:
        """Messages of each partition that are not read yet, as far as is known."""
        from confluent_kafka import TopicPartition  # noqa: PLC0415

        ends = self._spool.offsets.get(self._source.topic, {})
        found = {}
        for partition in sorted(self._partitions):
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._source.topic, partition), cached=True
            )
            if high >= 0:
                found[str(partition)] = max(0, high - max(ends.get(str(partition), 0), low))
        return found

    def _report(self) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _REPORT
        counts, self._counts = self._counts, Counter()
        told = {
            "rows": counts["rows"],
            "refused": {"unfit": counts["unfit"]} if counts["unfit"] else {},
            "newest": self._newest,
            "lag": self._lag(),
            **figures(self._spool),
        }
        self._link.send({"do": "report", "monitors": {self._name: told}})

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the daemon logs it


def read_messages(
    messages: Sequence[Message],
    layout: Layout,
    source: KafkaSource,
    decode: Decode,
    refuse: Callable[[Message, RefusedError], None],
) -> Rows:
    """Rows of messages; those that do not fit are left out, one by one. A message without a value is none.

    Args:
        messages: with their values as bytes.
        layout: of the spool.
        source: how the messages are written.
        decode: reads one.
        refuse: is told of each one that does not fit.
    """
    now = datetime.now(UTC)
    if (rows := _at_once(messages, layout, source, now)) is not None:
        return rows
    records, behind = [], []
    for message in messages:
        value = message.value()
        if value is None:
            continue
        try:
            record = decode(value[source.header_bytes :])
        except RefusedError as error:
            refuse(message, error)
            continue
        kind, sent = message.timestamp()
        if source.arrival and kind:
            record.setdefault(layout.timestamp, datetime.fromtimestamp(sent / 1000, UTC).isoformat())
        records.append(record)
        behind.append(message)
    parts = list(_fitting(records, behind, layout, now, refuse))
    return Rows(joined([part.batch for part in parts])) if parts else from_records([], layout, now)


def _at_once(messages: Sequence[Message], layout: Layout, source: KafkaSource, now: datetime) -> Rows | None:
    """JSON objects of a line each, if all of them fit."""
    values = [message.value() or b"" for message in messages]
    plain = source.format == "json" and not source.header_bytes and not source.arrival
    if not plain or not all(value and b"\n" not in value for value in values):
        return None
    try:
        rows = from_json_lines(b"\n".join(values), layout, now)
    except RefusedError:
        return None
    return rows if rows.batch.num_rows == len(values) else None


def _fitting(
    records: Sequence[dict[str, Any]],
    messages: Sequence[Message],
    layout: Layout,
    now: datetime,
    refuse: Callable[[Message, RefusedError], None],
) -> Iterator[Rows]:
    """Those that fit, in order; halves are tried apart until one alone does not."""
    if not records:
        return
    try:
        yield from_records(records, layout, now)
    except RefusedError as error:
        if len(records) == 1:
            refuse(messages[0], error)
            return
        half = len(records) // 2
        yield from _fitting(records[:half], messages[:half], layout, now, refuse)
        yield from _fitting(records[half:], messages[half:], layout, now, refuse)


def decoder(source: KafkaSource) -> Decode:
    """What reads the value of a message.

    Raises:
        ConfigError: fastavro is not installed, or the schema cannot be used.
    """
    if source.format == "json":
        return read_object
    try:
        import fastavro  # noqa: PLC0415
    except ImportError:
        raise ConfigError([f"Avro needs fastavro: {INSTALL}"]) from None
    text = source.avro_schema
    if text is None and source.schema_file is not None:
        try:
            text = Path(source.schema_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"the Avro schema {source.schema_file} cannot be read: {error}"]) from error
    try:
        schema = fastavro.parse_schema(json.loads(text or ""))
    except Exception as error:
        raise ConfigError([f"the Avro schema cannot be used: {error}"]) from error

    def decode(value: bytes) -> dict[str, Any]:
        stream = io.BytesIO(value)
        try:
            record = fastavro.schemaless_reader(stream, schema, None)
        except Exception as error:  # noqa: BLE001 - whatever a hostile record makes it raise
            raise RefusedError(f"this is no record of the schema: {error!a:.200}") from None
        if not isinstance(record, dict) or stream.read(1):
            raise RefusedError("this is no record of the schema, or more than one")
        return record

    return decode


def consumer(name: str, source: KafkaSource) -> Consumer:
    """A reader that leaves no trace at the brokers.

    Raises:
        ConfigError: confluent-kafka is not installed, or an option cannot be used.
    """
    try:
        from confluent_kafka import Consumer, KafkaException  # noqa: PLC0415
    except ImportError:
        raise ConfigError([f"Kafka needs confluent-kafka: {INSTALL}"]) from None
    secrets = {}
    for option, path in source.option_files.items():
        try:
            secrets[option] = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"option_files.{option}: {path} cannot be read: {error}"]) from error
    settings: dict[str, Any] = {
        "group.id": f"drift-monitor-{name}",
        "queued.max.messages.kbytes": _BYTES // 1024,
        "fetch.max.bytes": _BYTES,
        **source.options,
        **secrets,
        "bootstrap.servers": source.bootstrap,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",  # of an offset that the brokers have deleted
    }
    try:
        made: Consumer = Consumer(settings)
    except (KafkaException, ValueError, TypeError) as error:
        raise ConfigError([f"librdkafka does not take the options: {error}"]) from error
    return made


def _first(link: Link) -> Iterator[dict[str, Any]]:
    frame = link.inbox.get()
    if frame is not None:
        yield frame[0]


def main() -> int:
    """Take the settings from the daemon and read."""
    link = begin()
    for settings in _first(link):
        monitor = Monitor.model_validate_json(settings["monitor"])
        columns = [LiveColumn.model_validate(each) for each in settings["columns"]]
        try:
            KafkaChild(link, settings["name"], monitor, columns).run()
        except DriftMonitorError as error:
            link.send({"do": "problem", "monitor": settings["name"], "why": str(error)})
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
