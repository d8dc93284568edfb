"""Set-up for all tests."""

from __future__ import annotations

import os

# Before anything imports flwr, and inherited by every process that a test starts: no word
# to the outside, and no environment of its own for an app that is installed already.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
