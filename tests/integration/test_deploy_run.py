"""The commands of the image and of compose.yaml, outside a container: the daemon with compose's configuration."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PATIENCE = 60
TOKEN = "0123456789abcdef" * 3

pytestmark = [pytest.mark.server, pytest.mark.slow]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(probe, what):
    give_up = time.monotonic() + PATIENCE
    while not (found := probe()):
        assert time.monotonic() < give_up, f"waited {PATIENCE} s for {what}"
        time.sleep(0.2)
    return found


def get(url, **headers):
    """Status and body."""
    try:
        with urlopen(Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, ""
    except OSError:
        return 0, ""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the daemon, run as compose.yaml does; the paths in the container are replaced by those here."""
    folder, port = tmp_path_factory.mktemp("compose"), free_port()
    (folder / "token").write_text(TOKEN)
    shutil.copytree(ROOT / "reference_data" / "flight-delay", folder / "flight-delay")
    text = (ROOT / "deploy" / "compose" / "drift-monitor.yaml").read_text("utf-8")
    for inside, here in {
        "/var/lib/drift-monitor": str(folder / "state"),
        "/data/flight-delay": str(folder / "flight-delay"),
        "/run/secrets/drift-monitor-token": str(folder / "token"),
        "0.0.0.0:9877": f"127.0.0.1:{port}",
    }.items():
        assert inside in text
        text = text.replace(inside, here)
    (folder / "drift-monitor.yaml").write_text(text, "utf-8")
    compose = YAML(typ="safe").load((ROOT / "compose.yaml").read_text("utf-8"))
    command = compose["services"]["drift-monitor"]["command"]
    command = [re.sub(r"^--config=.*", f"--config={folder}/drift-monitor.yaml", part) for part in command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "drift_monitor", *command], stdout=log, stderr=log)
    try:
        until(
            lambda: process.poll() is None and get(f"http://127.0.0.1:{port}/-/ready")[0] == 200,
            f"the daemon; its log is {folder}/log",
        )
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_the_image_s_health_check_passes_and_notices_who_is_not_there(address):
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    [check] = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", dockerfile)
    program, *arguments = json.loads(check)
    assert program == "python"
    for where, code in ((address, 0), (f"127.0.0.1:{free_port()}", 1)):
        command = [sys.executable, *(part.replace("127.0.0.1:9877", where) for part in arguments)]
        assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=60).returncode == code


def test_metrics_ask_for_the_token(address):
    assert get(f"http://{address}/metrics")[0] == 401
    code, body = get(f"http://{address}/metrics", Authorization=f"Bearer {TOKEN}")
    assert code == 200
    assert 'model="arrival-delay"' in body


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_prometheus_scrapes_as_composed(address, tmp_path):
    port = free_port()
    (tmp_path / "token").write_text(TOKEN)
    shutil.copy(ROOT / "alerts" / "drift-monitor.rules.yml", tmp_path)
    text = (ROOT / "deploy" / "compose" / "prometheus.yml").read_text("utf-8")
    for inside, here in {
        "drift-monitor:9877": address,
        "/run/secrets/drift-monitor-token": str(tmp_path / "token"),
        "15s": "1s",
    }.items():
        assert inside in text
        text = text.replace(inside, here)
    (tmp_path / "prometheus.yml").write_text(text, "utf-8")
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}/",
        "--enable-feature=exemplar-storage",
    ]
    query = f"http://127.0.0.1:{port}/api/v1/query?" + urlencode({"query": 'up{job="drift-monitor"} == 1'})
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(
                lambda: (
                    process.poll() is None
                    and (answer := get(query))[0] == 200
                    and json.loads(answer[1])["data"]["result"]
                ),
                f"the scrape; its log is {tmp_path}/log",
            )
        finally:
            process.terminate()
