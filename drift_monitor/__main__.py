"""`python -m drift_monitor`."""

import sys

from drift_monitor.cli import main

if __name__ == "__main__":
    sys.exit(main())
