"""The systemd unit, and what the daemon tells the service manager."""

import shutil
import socket
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from drift_monitor.cli.options import BAD_CONFIG
from drift_monitor.service import systemd

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "drift-monitor.service"


@pytest.mark.server
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path):
    text = UNIT.read_text()
    assert "ExecStart=/opt/drift-monitor/bin/drift-monitor run" in text
    here = tmp_path / UNIT.name
    here.write_text(text.replace("/opt/drift-monitor/bin/drift-monitor", "/bin/true"))
    said = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_the_exit_code_of_a_bad_configuration_is_not_tried_again():
    assert f"RestartPreventExitStatus={BAD_CONFIG}\n" in UNIT.read_text()


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_reaches_the_service_manager(tmp_path, monkeypatch, abstract):
    name = f"@drift-monitor-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        systemd.notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_a_service_manager_that_is_away_costs_a_line_in_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.notify("WATCHDOG=1")
    assert "systemd cannot be told" in caplog.text


def test_a_stop_asks_for_the_time_it_needs(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        systemd.stopping(timedelta(seconds=1.5))
        assert manager.recv(100) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000"


def test_outside_systemd_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    systemd.notify("READY=1")
    systemd.reloading()
    assert systemd.watchdog_seconds() is None


def test_the_watchdog_is_fed_twice_as_often_as_asked(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    assert systemd.watchdog_seconds() == 30
