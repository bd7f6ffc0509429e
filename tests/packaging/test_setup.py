"""What a user installs from: the pins and the Makefile."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(canonical(line).split("==") for line in lines if line and not line.startswith("#"))


def canonical(requirement: str) -> str:
    return requirement.replace("_", "-").lower()


def test_every_pin_is_exact_and_free_of_local_builds() -> None:
    for name, version in pins().items():
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = dict(project["optional-dependencies"])
    extras.pop("openvino")  # its engine is not built yet
    wanted = [*project["dependencies"], *(item for extra in extras.values() for item in extra)]
    names = {re.split(r"[\s\[<>=!~;]", canonical(item))[0] for item in wanted}
    assert names <= set(pins())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_without_a_python_says_what_to_do(tmp_path: Path) -> None:
    command = ["make", "demo", "PYTHON=python9.9", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "python9.9 was not found" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()
