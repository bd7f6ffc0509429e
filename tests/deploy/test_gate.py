"""deploy/ci/gate.sh with an engine that only pretends; the container tests run it with a real one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.helm_tool import REPOSITORY

# A container that never becomes healthy; beside it one that was left over, and is asked about by nobody.
DOCKER = """#!/bin/sh
case "$*" in
    "compose ps -a -q triton") echo 9876; echo 0123 ;;
    inspect*0123) echo "starting running 0" ;;
    inspect*) echo "Error: no such object" >&2; exit 1 ;;
esac
"""


def run(
    folder: Path, settings: str, docker: str = DOCKER, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a copy of the gate whose `.env` holds ``settings``, with ``docker`` as the engine."""
    script = folder / "deploy" / "ci" / "gate.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / "deploy" / "ci" / "gate.sh", script)
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(docker, encoding="utf-8")
    program.chmod(0o755)
    (folder / "models").mkdir()
    (folder / ".env").write_text(settings, encoding="utf-8")
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    environment.pop("TRIMARAN_START_SECONDS", None)
    return subprocess.run(
        [script, folder / "models"],
        env={**environment, **variables},
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        # The last one counts, as for compose.
        ("TRIMARAN_START_SECONDS=900\nTRIMARAN_START_SECONDS=0\n", {}),
        ("TRIMARAN_START_SECONDS='0'\n", {}),
        ('TRIMARAN_START_SECONDS="0"  # at once\n', {}),
        ("TRIMARAN_START_SECONDS=900\n", {"TRIMARAN_START_SECONDS": "0"}),
    ],
    ids=["last", "quoted", "remark", "environment"],
)
def test_it_waits_as_long_as_the_settings_say(
    tmp_path: Path, settings: str, variables: dict[str, str]
) -> None:
    done = run(tmp_path, settings, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "triton is not healthy: still starting running 0" in done.stderr


def test_an_engine_that_fails_is_no_broken_limit(tmp_path: Path) -> None:
    done = run(tmp_path, "", DOCKER.replace("inspect*0123", "inspect*never"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no such object" in done.stderr


def test_without_a_container_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "", DOCKER.replace("echo 9876; echo 0123", "exit 1"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "compose started no container" in done.stderr
