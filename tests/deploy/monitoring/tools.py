"""Tools from outside Python: skip a test without one, unless it is required."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["missing", "require"]


def require(tool: str) -> str:
    """Return the path of a program, or skip the test.

    Where the environment variable ``TRIMARAN_TEST_REQUIRE`` (a comma-separated list) names the tool, as
    ``.ci/run`` does, a missing one fails instead: CI must not pass by skipping.
    """
    found = shutil.which(tool)
    if found is None:
        missing(tool, "it is not on PATH")
    return found


def missing(tool: str, reason: str) -> NoReturn:
    """Skip the test for want of a tool, or fail it where TRIMARAN_TEST_REQUIRE names the tool."""
    required = {name.strip() for name in os.environ.get("TRIMARAN_TEST_REQUIRE", "").split(",")}
    if tool in required:
        pytest.fail(f"{tool} is required by TRIMARAN_TEST_REQUIRE: {reason}", pytrace=False)
    pytest.skip(f"needs {tool}: {reason}")
