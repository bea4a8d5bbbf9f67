"""What every test stands on."""

import os

from drift_monitor.cpu import choose_vectors

choose_vectors(os.environ)  # as the program does, before anything imports numpy

from hypothesis import settings  # noqa: E402

settings.register_profile("patient", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("patient")

for name in ("COLUMNS", "LINES"):  # some shells and runners export the width of their own terminal
    os.environ.pop(name, None)
