"""Write the dashboards' JSON files: `python grafana/build.py [FOLDER]`, by default into grafana/dashboards/.

Needs grafana-foundation-sdk, which `make setup` installs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from daemon import daemon
from feature import feature
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from monitor import monitor
from overview import overview

FOLDER = Path(__file__).resolve().parent / "dashboards"
DASHBOARDS = (overview, monitor, feature, daemon)

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for build in DASHBOARDS:
        dashboard = build().build()
        text = json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{dashboard.uid}.json").write_text(text, encoding="utf-8")
