"""The tools that monitoring is checked with."""

from __future__ import annotations

import pytest

from tests.deploy.monitoring.tools import require


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of ``promtool``; Debian and Ubuntu have it in the package ``prometheus``."""
    return require("promtool")


@pytest.fixture(scope="session")
def prometheus() -> str:
    """The path of the Prometheus server."""
    return require("prometheus")
