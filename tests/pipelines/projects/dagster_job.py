"""A job that writes down what it was told."""

import json
import os
from pathlib import Path

from dagster import Config, Definitions, OpExecutionContext, job, op


class Told(Config):
    retraining: dict
    rows: int


@op
def train(context: OpExecutionContext, config: Told) -> None:
    path = Path(os.environ["TOLD"]) / f"{context.run.tags['drift_monitor/retraining']}.json"
    path.write_text(json.dumps([config.retraining, config.rows]))


@job
def retrain():
    train()


defs = Definitions(jobs=[retrain])
