"""A real daemon with a monitor that takes rows, and a client that sends them."""

import http.client
import io
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.intake import PushSource
from drift_monitor.sources.spool import all_pieces, open_spool

START = datetime(2026, 1, 1, tzinfo=UTC)
JSON_LINES = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
RUN = ("-m", "drift_monitor", "run", "--config")


def training(path, rows=5000):
    """Nine days of a number, a category and a prediction."""
    rng = np.random.default_rng(1)
    stamps = [START - timedelta(days=9) + timedelta(minutes=2 * i) for i in range(rows)]
    table = {
        "t": stamps,
        "x": rng.normal(size=rows),
        "carrier": rng.choice(["AA", "UA", "7"], rows),
        "weekend": rng.random(rows) < 0.3,
        "p": rng.random(rows),
    }
    pq.write_table(pa.table(table), path)


def configure(folder, *, source=None, server=None, **monitor):
    """Write a configuration and its training data; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "training.parquet").exists():
        training(folder / "training.parquet")
    config = {
        "state": "state",
        "server": {"listen": "127.0.0.1:0", **(server or {})},
        "monitors": {
            "m": {
                "reference": "training.parquet",
                "source": {"type": "push", "timestamp": "t", **(source or {})},
                "schedule": {"every": "1h"},
                "window": {"length": "1h"},
                "columns": {"prediction": "p", "id": "id"},
                "report": {"enabled": False},
                **monitor,
            },
            "missing": {
                "reference": "missing.parquet",
                "source": {"type": "push", "timestamp": "t"},
                "schedule": {"every": "1h"},
            },
            "files": {
                "reference": "training.parquet",
                "source": {"path": "training.parquet", "timestamp": "t"},
                "schedule": {"every": "1d"},
                "report": {"enabled": False},
            },
        },
    }
    path = folder / "drift-monitor.yaml"
    path.write_text(json.dumps(config))
    return path


def rows(first, count):
    """Rows as JSON objects, with ids that tell them apart."""
    return [
        {
            "t": (START + timedelta(seconds=i)).isoformat(),
            "x": i / 7,
            "carrier": ("AA", "UA", "7")[i % 3],
            "weekend": i % 2 == 0,
            "p": 0.5,
            "id": str(i),
        }
        for i in range(first, first + count)
    ]


def lines(records):
    return b"".join(json.dumps(each).encode() + b"\n" for each in records)


def arrow(records, **options):
    table = pa.Table.from_pylist(records)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


class Client:
    """Sends rows over one connection, which is opened again when it breaks."""

    def __init__(self, address, monitor="m", timeout=60):
        self.address, self.path, self.timeout = urlsplit(address), f"/api/v1/monitors/{monitor}/records", timeout
        self.connection = None

    def send(self, body, kind=JSON_LINES, path=None, **headers):
        """Status, headers and the answer.

        Raises:
            OSError, http.client.HTTPException: there was none.
        """
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                self.address.hostname, self.address.port, timeout=self.timeout
            )
        found = {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
        try:
            self.connection.request("POST", path or self.path, body, found)
            answer = self.connection.getresponse()
            text = answer.read()
        except BaseException:
            self.close()
            raise
        if answer.getheader("connection", "").lower() == "close":
            self.close()
        told = (
            json.loads(text) if answer.headers["content-type"] == "application/json" else {"text": text.decode()}
        )
        return answer.status, answer.headers, told

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def kept(folder, columns=("id",)):
    """The rows of a spool, as a check finds them."""
    source = open_spool(PushSource(type="push", timestamp="t", spool=folder), {})
    found = [batch.select(columns) for split in source.splits(None) for batch in source.batches(split, columns)]
    return pa.Table.from_batches(found).to_pylist() if found else []


def count(folder):
    source = open_spool(PushSource(type="push", timestamp="t", spool=folder), {})
    return sum(batch.num_rows for split in source.splits(None) for batch in source.batches(split, ["t"]))


def journals(folder):
    return list(folder.glob(".journal-*"))


def pieces(folder):
    return all_pieces(folder)
