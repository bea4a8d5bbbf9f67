"""A flow that writes down what it was told, served until it is stopped."""

import json
import sys
from pathlib import Path

from prefect import flow


@flow
def retrain(retraining: dict, rows: int) -> None:
    folder = Path(sys.argv[1])
    (folder / f"{retraining['retraining']['id']}.json").write_text(json.dumps([retraining, rows]))


if __name__ == "__main__":
    retrain.serve(name="drift")
