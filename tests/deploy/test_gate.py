"""deploy/ci/gate.sh with an engine that only pretends; the container tests run it with a real one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.helm_tool import REPOSITORY

# A container that never becomes healthy.
DOCKER = """#!/bin/sh
case "$*" in
    "compose ps -q triton") echo 0123 ;;
    inspect*) echo "starting running 0" ;;
esac
"""


@pytest.mark.parametrize("place", [".env", "environment"])
def test_it_waits_as_long_as_the_settings_say(tmp_path: Path, place: str) -> None:
    script = tmp_path / "deploy" / "ci" / "gate.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "deploy" / "ci" / "gate.sh", script)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    (tmp_path / "models").mkdir()
    environment = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    environment.pop("TRIMARAN_START_SECONDS", None)
    if place == ".env":
        # The last one counts, as for compose.
        (tmp_path / ".env").write_text(
            "TRIMARAN_START_SECONDS=900\nTRIMARAN_START_SECONDS=0\n", encoding="utf-8"
        )
    else:
        (tmp_path / ".env").write_text("TRIMARAN_START_SECONDS=900\n", encoding="utf-8")
        environment["TRIMARAN_START_SECONDS"] = "0"
    done = subprocess.run(
        [script, tmp_path / "models"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "triton is not healthy: still starting running 0" in done.stderr
