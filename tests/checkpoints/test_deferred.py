from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from checkpoints.deferred import after_import


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "late_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("from late_package.inner import VALUE\n")
    (folder / "inner.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "late_package.inner"
    for name in ("late_package", "late_package.inner"):
        sys.modules.pop(name, None)


def test_it_is_called_once_right_after_the_import(package: str) -> None:
    finders = list(sys.meta_path)
    seen: list[int] = []
    after_import(package, lambda: seen.append(sys.modules[package].VALUE))
    assert seen == []
    assert package not in sys.modules
    importlib.import_module("late_package")
    assert seen == [7]
    assert sys.meta_path == finders
    module = importlib.reload(sys.modules[package])
    assert seen == [7]
    assert module.__loader__.get_source(package) == "VALUE = 7\n"


def test_at_once_where_the_module_is_there(package: str) -> None:
    importlib.import_module(package)
    seen: list[int] = []
    after_import(package, lambda: seen.append(1))
    assert seen == [1]


def test_a_module_that_does_not_exist_is_none_of_its_business(package: str) -> None:
    finders = list(sys.meta_path)
    after_import("late_package.nothing", lambda: pytest.fail("called"))
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("late_package.nothing")
    assert sys.meta_path == finders
