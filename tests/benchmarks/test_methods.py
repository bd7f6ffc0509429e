"""The committed comparison of methods: its page, and the docs' table, say what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods import METHODS
from benchmarks.methods_estimate import estimate_methods
from benchmarks.methods_report import render_methods

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
ROWS = {
    "full": "full",
    "lora": "lora",
    "lora on q and v": "lora-qv",
    "qlora": "qlora",
    "bottleneck": "bottleneck",
}
"""What the docs call a method -> its name in the results."""


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "methods.json").read_text(encoding="utf-8"))
    return found


def test_the_page_is_that_of_the_figures(results: dict[str, Any]) -> None:
    assert (RESULTS / "methods.md").read_text(encoding="utf-8") == render_methods(results)


def test_each_method_was_measured_with_its_settings(results: dict[str, Any]) -> None:
    assert results["methods"].keys() == METHODS.keys() == set(ROWS.values())
    for name, facts in results["methods"].items():
        assert facts["settings"] == METHODS[name]


@pytest.mark.parametrize("name", METHODS)
def test_what_is_estimated_at_7b_is_the_estimate(results: dict[str, Any], name: str) -> None:
    found = estimate_methods({name: METHODS[name]})["methods"][name]
    assert found == pytest.approx(results["estimated"]["methods"][name], rel=1e-3)


def test_the_table_of_the_docs_is_that_of_the_figures(results: dict[str, Any]) -> None:
    table = DOCS.split("## Measured", 1)[1].split("\n## ", 1)[0]
    lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    rows = {title: cells for title, *cells in lines if cells}
    measured, estimated = results["methods"], results["estimated"]["methods"]
    for title, name in ROWS.items():
        facts = measured[name]
        share = facts["tokens_per_second"] / measured["full"]["tokens_per_second"]
        memory = estimated[name]["total_bytes"] / estimated["full"]["total_bytes"]
        trained = "100%" if name == "full" else f"{100 * facts['trainable_share']:.2f}%"
        whole = f" ({estimated['full']['total_bytes'] / 1e9:.0f} GB)" if name == "full" else ""
        assert rows[title] == [
            f"{facts['peak_bytes'] / 1e9:.1f} GB",
            f"{100 * share:.0f}%",
            trained,
            f"{facts['eval_loss']:.3f}",
            f"{100 * memory:.0f}%{whole}",
        ]
    assert f"the held-out loss is {results['base_loss']:.3f}" in table
    assert "not measured" in rows["any of them on a GPU"]
    inside = [number for number, line in enumerate(table.splitlines()) if line.startswith("|")]
    assert inside == list(range(inside[0], inside[0] + len(ROWS) + 3)), "a line between rows ends the table"
