"""``model.py`` is no importable module (its folder is called 1): import-linter cannot see it, this does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import model_repository

SOURCES = sorted(Path(model_repository.__file__).parent.glob("*/1/model.py"))
OURS_ABOVE = {"evaluation", "loadtests", "training", "trimaran"}
NEEDS_NUMPY_2 = {"datasets", "matplotlib", "ml_dtypes", "onnx", "pyarrow"}


def test_both_models_are_there() -> None:
    assert [source.parent.parent.name for source in SOURCES] == ["llm", "llm_infer"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parent.parent.name)
def test_model_stays_on_its_floor(source: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "Triton loads model.py by path: there is nothing to be relative to"
            imported.add((node.module or "").partition(".")[0])
    assert not imported & (OURS_ABOVE | NEEDS_NUMPY_2)
