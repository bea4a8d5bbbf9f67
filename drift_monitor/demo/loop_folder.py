"""The loop demo's folder: besides what the plain demo has, the pipeline's models and its inbox."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from drift_monitor.demo.data import IDENTIFIER, LABEL, TIMESTAMP
from drift_monitor.demo.folder import MARK, SCHEDULE_FEATURES, SCHEDULE_MONITOR, DemoFolder
from drift_monitor.demo.loop_plan import FIRST_VERSION, SPAN
from drift_monitor.demo.plan import DAY
from drift_monitor.demo.receiver import new_secret

TEAM: Final = "team"
PIPELINE: Final = "pipeline"

_CONFIG: Final = """\
{mark} Change it and run `drift-monitor check-config`;
# the next demo in this folder writes it anew.
state: state
server: {{listen: "{listen}"}}

receivers:
  {team}: {{type: webhook, url: "{team_url}", secret_file: webhook-secret}}
  {pipeline}: {{type: webhook, url: "{pipeline_url}", secret_file: pipeline-secret}}

monitors:
  {monitor}:
    model: {{name: arrival-delay, version: "{version}", owner: flight-ops}}
    downstream: [gate-planning]
    reference: training.parquet
    source: {{type: files, path: "live/*.parquet", timestamp: {timestamp}}}
    schedule: {{cron: "0 4 * * *", catch_up: all}}  # midnight in New York, in summer time
    window: {{length: 1d}}
    columns: {{features: [{features}], label: {label}, id: {identifier}}}
    alarm: {{persistence: 2 of 3}}
    # New airports, carriers and destinations are news to this team, not damage: the drift lane has them to itself.
    # Without this line an airport of a third of the flights counts as broken data, and nobody retrains on that.
    quality: {{disable: [unseen, constant]}}
    report: {{enabled: false}}  # `drift-monitor demo` shows one
    refresh: {{enabled: true, policy: sliding, span: {span}d, live: {span}d}}
    reweight: {{enabled: true}}
    retrain: {{receiver: {pipeline}, mode: propose, min_rows: 500}}
    notify: [{team}]
"""


class LoopFolder(DemoFolder):
    """Paths below the loop demo's folder."""

    @property
    def models(self) -> Path:
        """The pipeline's models and `live.json`."""
        return self.path / "models"

    @property
    def inbox(self) -> Path:
        """The pipeline's requests."""
        return self.path / "inbox"

    @property
    def pipeline_secret(self) -> Path:
        """Signs the requests to the pipeline."""
        return self.path / "pipeline-secret"

    @property
    def pipeline_log(self) -> Path:
        """What the pipeline wrote to stderr."""
        return self.path / "pipeline.log"

    @property
    def second_log(self) -> Path:
        """What the daemon wrote to stderr after it was started again."""
        return self.path / "daemon-2.log"

    def claim(self) -> None:
        """Make the folder, or clear what an earlier demo left in it.

        Raises:
            StoreError: the folder holds something else, cannot be written, or a demo is running in it.
        """
        super().claim()
        for old in (self.models, self.inbox):
            shutil.rmtree(old, ignore_errors=True)
        for log in (self.pipeline_log, self.second_log):
            log.unlink(missing_ok=True)
        descriptor = os.open(self.pipeline_secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret() + "\n")

    def configure(self, *, listen: str, team: str, pipeline: str) -> None:
        """Write the configuration.

        Args:
            listen: of the daemon.
            team: URL of the team's receiver.
            pipeline: URL of the pipeline's.
        """
        text = _CONFIG.format(
            mark=MARK,
            listen=listen,
            team=TEAM,
            team_url=team,
            pipeline=PIPELINE,
            pipeline_url=pipeline,
            monitor=SCHEDULE_MONITOR,
            version=FIRST_VERSION,
            timestamp=TIMESTAMP,
            features=", ".join(SCHEDULE_FEATURES),
            label=LABEL,
            identifier=IDENTIFIER,
            span=SPAN // DAY,
        )
        self.config.write_text(text)
