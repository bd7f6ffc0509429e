"""The committed page is that of the figures, and what is said of them holds."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.forgetting_report import render_forgetting

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def test_the_page_is_that_of_the_figures() -> None:
    results = json.loads((RESULTS / "forgetting.json").read_text())
    assert (RESULTS / "forgetting.md").read_text() == render_forgetting(results)


def test_less_is_forgotten_with_ewc_than_without() -> None:
    runs = json.loads((RESULTS / "forgetting.json").read_text())["runs"]
    assert runs["a"]["a"] < runs["none"]["a"], "there is something to forget"
    weighted = [facts for facts in runs.values() if facts.get("weight")]
    assert min(facts["a"] for facts in weighted) < runs["none"]["a"]
    assert all(facts["b"] < runs["a"]["b"] for facts in weighted), "B is learned all the same"
