"""docs/push.md as it is written: its configuration, the body of its curl command, and its Python function."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from daemon_harness import Process, until
from push_harness import RUN, Client
from ruamel.yaml import YAML

from drift_monitor.config.intake import PushSource
from drift_monitor.sources.spool import open_spool

PAGE = (Path(__file__).parents[2] / "docs" / "push.md").read_text("utf-8")
START = datetime(2026, 2, 20, tzinfo=UTC)


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    rng, n = np.random.default_rng(1), 3000
    training = {
        "scheduled_departure": [START + timedelta(minutes=3 * i) for i in range(n)],
        "distance": rng.integers(100, 2500, n),
        "carrier": rng.choice(["UA", "DL"], n),
        "p_late": rng.random(n),
    }
    pq.write_table(pa.table(training), folder / "training.parquet")
    config = YAML(typ="safe").load(block("yaml")) | {"state": "state", "server": {"listen": "127.0.0.1:0"}}
    (folder / "drift-monitor.yaml").write_text(json.dumps(config))
    process = Process(folder / "drift-monitor.yaml", command=(sys.executable, *RUN))
    try:
        api = process.wait_until_ready()
        until(lambda: "flight-delay" in api.status()["intake"]["monitors"], "the intake")
        yield api.address, folder / "state" / "spool" / "flight-delay"
        assert process.end() == 0  # what was taken is in files then
        source = open_spool(
            PushSource(
                type="push", timestamp="scheduled_departure", spool=folder / "state" / "spool" / "flight-delay"
            ),
            {},
        )
        kept = [
            value
            for split in source.splits(None)
            for batch in source.batches(split, ["flight_id"])
            for value in batch.column("flight_id").to_pylist()
        ]
        assert sorted(kept) == ["AA1", "DL461", "UA1545"]
    finally:
        process.end()


def test_the_command_is_answered_as_the_page_says(daemon):
    address, _ = daemon
    path, kind, key = re.search(
        r"curl -i http://[^/]+(\S+).*?Content-Type: (\S+)'.*?Idempotency-Key: (\S+)'", PAGE, re.DOTALL
    ).groups()
    body = re.search(r"<<'ROWS'\n(.*?)\n    ROWS", PAGE, re.DOTALL)[1]
    with Client(address) as client:
        status, _, told = client.send(body.encode(), kind, path, Idempotency_Key=key)
    said = json.loads(re.search(r"HTTP/1.1 202 Accepted\n    (.*)", PAGE)[1])
    assert (status, told.keys(), told["rows"]) == (202, said.keys(), said["rows"])


def test_the_function_sends(daemon):
    address, _ = daemon
    names = {}
    exec(block("python"), names)
    row = {
        "scheduled_departure": datetime(2026, 3, 1, 9, tzinfo=UTC),
        "distance": 700,
        "carrier": "UA",
        "p_late": 0.2,
        "flight_id": "AA1",
    }
    names["send"](pa.Table.from_pylist([row]), f"{address}/api/v1/monitors/flight-delay/records", "unused")
