"""The demo's folder: what lies where, its configuration file, and how to run the demo in it again."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drift_monitor.core.errors import StoreError
from drift_monitor.demo.data import IDENTIFIER, LABEL, TIMESTAMP, WEATHER
from drift_monitor.demo.model import SCORE
from drift_monitor.demo.receiver import new_secret
from drift_monitor.service.lock import read_lock

SCHEDULE_MONITOR: Final = "flight-delay"
WEATHER_MONITOR: Final = "flight-weather"
SCHEDULE_FEATURES: Final = ("carrier", "origin", "dest", "distance", "sched_hour")
WEATHER_FEATURES: Final = tuple(name for name in WEATHER if name != "temp")
RECEIVER: Final = "retraining"
MARK: Final = "# Written by `drift-monitor demo`."

_CONFIG: Final = """\
{mark} Change it and run `drift-monitor check-config`;
# the next demo in this folder writes it anew.
state: state
server: {{listen: "{listen}"}}
workers: {{count: 2}}

receivers:
  {receiver}: {{type: webhook, url: "{webhook}", secret_file: webhook-secret}}

monitors:
  # What the airlines plan. Not the weekday: a day has one, and the three months of the reference have all seven.
  {schedule_monitor}:
    model: {{name: arrival-delay, version: "2013-03", owner: flight-ops}}
    reference: reference
    source: {{type: files, path: "live/*.parquet", timestamp: {timestamp}}}
    schedule: {{every: 1h, catch_up: all}}
    window: {{length: 1d}}
    columns: {{features: [{schedule_features}], label: {label}, id: {identifier}}}
    alarm: {{persistence: 2 of 3}}
    notify: [{receiver}]

  # The weather, and the model's score, which follows it. Not the temperature: three months of winter cannot say
  # what is usual in April. With a whole year as the reference it would belong here. Add it to see what it does.
  {weather_monitor}:
    model: {{name: arrival-delay, version: "2013-03", owner: flight-ops}}
    reference: reference
    source: {{type: files, path: "live/*.parquet", timestamp: {timestamp}}}
    schedule: {{every: 1h, catch_up: all}}
    window: {{length: 1d}}
    columns: {{features: [{weather_features}], prediction: {score}, label: {label}, id: {identifier}}}
    alarm: {{persistence: 2 of 3}}
    notify: [{receiver}]
"""


@dataclass(frozen=True)
class DemoFolder:
    """Paths below the demo's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration file, a real one."""
        return self.path / "drift-monitor.yaml"

    @property
    def training(self) -> Path:
        """What the model was trained on."""
        return self.path / "training.parquet"

    @property
    def reference(self) -> Path:
        """The reference built from it."""
        return self.path / "reference"

    @property
    def live(self) -> Path:
        """The inference log."""
        return self.path / "live"

    @property
    def state(self) -> Path:
        """The daemon's."""
        return self.path / "state"

    @property
    def secret(self) -> Path:
        """Signs the webhooks."""
        return self.path / "webhook-secret"

    @property
    def received(self) -> Path:
        """The webhooks as they came, one a line."""
        return self.path / "received.jsonl"

    @property
    def log(self) -> Path:
        """What the daemon wrote to stderr."""
        return self.path / "daemon.log"

    def claim(self) -> None:
        """Make the folder, or clear what an earlier demo left in it.

        Raises:
            StoreError: the folder holds something else, cannot be written, or a demo is running in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()) and not self._is_ours():
                raise StoreError(
                    f"{self.path} holds files that are not a demo's, and the demo would write among them: "
                    "name another folder with --folder"
                )
            if holder := read_lock(self.state):
                raise StoreError(
                    f"a demo is running in {self.path} already (pid {holder.pid}): stop it, "
                    "or name another folder with --folder"
                )
            shutil.rmtree(self.state, ignore_errors=True)
            for old in (self.received, self.log):
                old.unlink(missing_ok=True)
            self.config.write_text(f"{MARK}\n")
            descriptor = os.open(self.secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(new_secret() + "\n")
        except OSError as error:
            raise StoreError(f"the demo cannot use {self.path}: {error}; name another with --folder") from error

    def write_config(self, *, listen: str, webhook: str) -> None:
        """Write the configuration of the demo's two monitors."""
        text = _CONFIG.format(
            mark=MARK,
            listen=listen,
            webhook=webhook,
            receiver=RECEIVER,
            schedule_monitor=SCHEDULE_MONITOR,
            schedule_features=", ".join(SCHEDULE_FEATURES),
            weather_monitor=WEATHER_MONITOR,
            weather_features=", ".join(WEATHER_FEATURES),
            score=SCORE,
            timestamp=TIMESTAMP,
            label=LABEL,
            identifier=IDENTIFIER,
        )
        self.config.write_text(text)

    def _is_ours(self) -> bool:
        return self.config.is_file() and self.config.read_text(errors="replace").startswith(MARK)
