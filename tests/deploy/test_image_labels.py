"""The labels of an image that say where it comes from, on their way from git to the build's arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.compose_tool import VERSIONS, compose_program
from tests.deploy.helm_tool import REPOSITORY
from tests.deploy.test_gate import run
from tests.git_commit import TIME, commit

LABELS = ("SOURCE", "REVISION", "CREATED")
# Says what the build and `up` are given. The gate stops there, for want of a container.
DOCKER = """#!/bin/sh
case "$*" in
    *" build "*)
        commit="${TRIMARAN_REVISION:-none} ${TRIMARAN_CREATED:-never}"
        echo "built from ${TRIMARAN_SOURCE:-nowhere} $commit" ;;
    *" up "*) echo "up with ${TRIMARAN_REVISION:-none}" ;;
esac
"""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=len)
def test_compose_passes_them_to_each_build(tmp_path: Path, version: str, files: list[str]) -> None:
    given = {f"TRIMARAN_{name}": f"the-{name.lower()}" for name in LABELS}
    for name in files:
        shutil.copy(REPOSITORY / name, tmp_path)
    program = compose_program(version)
    options = [part for name in files for part in ("-f", name)]
    done = subprocess.run(
        [program, *options, "--profile", "loadtest", "--profile", "locust", "config"],
        env={**os.environ, "TRIMARAN_REPOSITORY": "/models", **given},
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    services = yaml.safe_load(done.stdout)["services"]
    for name in ("triton", "loadtest", "locust-master", "locust-worker"):
        arguments = services[name]["build"]["args"]
        assert {one: arguments[one] for one in LABELS} == {one: f"the-{one.lower()}" for one in LABELS}
        assert arguments["BASE_IMAGE"]


def test_the_gate_names_the_commit_to_the_build_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIMARAN_SOURCE", "TRIMARAN_REVISION", "TRIMARAN_CREATED", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    expected = commit(tmp_path)
    done = run(tmp_path, "", DOCKER, GITHUB_REPOSITORY="somebody/trimaran")
    assert f"built from https://github.com/somebody/trimaran {expected} {TIME}" in done.stdout
    assert "up with none" in done.stdout


def test_what_the_caller_says_is_kept(tmp_path: Path) -> None:
    given = {"TRIMARAN_SOURCE": "here", "TRIMARAN_REVISION": "mine", "TRIMARAN_CREATED": "today"}
    (tmp_path / "file").touch()
    commit(tmp_path)
    done = run(tmp_path, "", DOCKER, **given, GITHUB_REPOSITORY="somebody/trimaran")
    assert "built from here mine today" in done.stdout


def test_without_a_repository_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIMARAN_SOURCE", "TRIMARAN_REVISION", "TRIMARAN_CREATED", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    # A folder inside somebody else's repository is none either.
    (tmp_path / "inside").mkdir()
    (tmp_path / "file").touch()
    commit(tmp_path)
    done = run(tmp_path / "inside", "", DOCKER)
    assert "built from nowhere none never" in done.stdout
