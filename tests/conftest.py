"""Set-up for all tests."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# Before anything imports flwr, and inherited by every process that a test starts: no word
# to the outside, and no environment of its own for an app that is installed already.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"

# Before anything imports numpy or torch: tests run in several processes, which are not to
# fight over the cores, and results are not to depend on how many there are.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Nothing of the user's, and nothing left behind. Made by the first process, used by all.
_OWN_CACHE = "FL_OPT_CACHE" not in os.environ or "PYTEST_XDIST_WORKER" not in os.environ
if _OWN_CACHE:
    os.environ["FL_OPT_CACHE"] = tempfile.mkdtemp(prefix="fl-opt-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Delete the cache of this session."""
    if _OWN_CACHE:
        shutil.rmtree(os.environ["FL_OPT_CACHE"], ignore_errors=True)


# How long an example takes says little on a machine that does other things as well.
settings.register_profile("fl-opt", deadline=None)
settings.load_profile("fl-opt")
