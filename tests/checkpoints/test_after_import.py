from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from checkpoints.after_import import after_import


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "late_module.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "late_module", raising=False)
    return "late_module"


def test_runs_once_after_the_module_is_executed(name: str) -> None:
    seen = []
    after_import(name, lambda: seen.append(sys.modules[name].VALUE))
    assert find_spec(name) is not None  # looking for it is not importing it
    assert seen == []
    importlib.import_module(name)
    assert seen == [7]
    importlib.reload(sys.modules[name])
    assert seen == [7]
    after_import(name, lambda: seen.append(8))
    assert seen == [7, 8]


def test_a_module_that_is_not_there_is_still_not_there() -> None:
    after_import("no_such_module_at_all", lambda: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_at_all")
