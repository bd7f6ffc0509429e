"""The folder of an engine is in memory where that is possible, and else stays what it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.containers import in_memory as module
from tests.deploy.containers.in_memory import in_memory


def test_what_it_holds_is_gone_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_spare", lambda: 2 * 2**30)
    with in_memory(tmp_path, 1):
        if not os.path.ismount(tmp_path):
            pytest.skip("no right to mount here")
        (tmp_path / "inside").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "inside"], check=True)
    assert not os.path.ismount(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_with_little_memory_it_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_spare", lambda: 2 * 2**30 - 1)
    with in_memory(tmp_path, 1):
        assert not os.path.ismount(tmp_path)
        (tmp_path / "kept").touch()
    assert (tmp_path / "kept").exists()


def test_the_spare_memory_is_no_more_than_there_is() -> None:
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    total = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
    assert 0 < module._spare() <= total
