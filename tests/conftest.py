"""What every test stands on."""

import os

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("patient")

for name in ("COLUMNS", "LINES"):  # some shells and runners export the width of their own terminal
    os.environ.pop(name, None)
