"""What `trimaran deploy compose --up` says of the source in the labels of the image that it builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.git_commit import TIME, commit
from tests.trimaran.docker_engine import FakeEngine, fake_compose
from tests.trimaran.test_deploy_containers import engine, folder, state
from trimaran.cli import main
from trimaran.deploy.containers import start
from trimaran.deploy.source import source_labels

__all__ = ["engine", "folder"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    found = tmp_path / "clone"
    (found / "docs").mkdir(parents=True)
    (found / "docs" / "page").touch()
    (found / "Dockerfile").write_text("FROM scratch\n")
    return found


def test_they_name_the_commit_and_its_time(clone: Path) -> None:
    assert source_labels(clone) == {}
    expected = commit(clone)
    assert source_labels(clone) == {"TRIMARAN_REVISION": expected, "TRIMARAN_CREATED": TIME}
    (clone / "Dockerfile").write_text("FROM other\n")
    assert source_labels(clone)["TRIMARAN_REVISION"] == f"{expected}-dirty"
    # A folder of a repository is not what the commit names.
    assert source_labels(clone / "docs") == {}


def test_without_git_there_are_none(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(clone)
    monkeypatch.setenv("PATH", "")
    assert source_labels(clone) == {}


def test_only_the_build_is_told(engine: FakeEngine, folder: Path) -> None:
    """What `up` is given belongs to the container, which another `up` by hand would then replace."""
    calls = fake_compose(folder.parent / "bin")
    engine.states = [state("healthy")]
    start(folder, build=True, timeout=5, labels={"TRIMARAN_REVISION": "abc", "TRIMARAN_CREATED": TIME})
    assert (calls.parent / "labels").read_text() == f"build triton abc {TIME}\n"


def test_up_from_the_command_line_tells_it(
    engine: FakeEngine, repository: Path, clone: Path, tmp_path: Path
) -> None:
    calls = fake_compose(tmp_path / "bin", running=True)
    engine.states = [state("healthy")]
    expected = commit(clone)
    arguments = ["--repository", str(repository), "--output", str(tmp_path / "new"), "--up"]
    assert main(["deploy", "compose", *arguments, "--build-context", str(clone)]) == 0
    assert (calls.parent / "labels").read_text() == f"build triton {expected} {TIME}\n"
