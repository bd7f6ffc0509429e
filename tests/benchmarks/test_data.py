"""The committed page and the docs are those of the figures, and what is said of them holds."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.data_report import render_data

ROOT = Path(__file__).resolve().parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "data.json").read_text())


def test_the_page_is_that_of_the_figures() -> None:
    page = (ROOT / "benchmarks" / "results" / "data.md").read_text(encoding="utf-8")
    assert page == render_data(RESULTS)
    assert "/" not in RESULTS["source"]["name"], "a path of the machine that measured"


def test_what_is_slipped_in_is_found_and_nothing_else_is() -> None:
    found = RESULTS["contamination"]
    assert found["found"] == found["slipped_in"] > 0
    assert found["among_the_rows"] == 0


def test_the_docs_have_the_figures() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8").split("## Measured")[1]
    cleaning, packing, store = RESULTS["cleaning"], RESULTS["packing"], RESULTS["store"]
    kept = cleaning["kept"]
    for figure in (
        f"{RESULTS['source']['rows']:,} rows",
        f"{cleaning['rows_per_second']:.0f} rows a second",
        f"{kept:,} of them are kept",
        f"{cleaning['bytes_per_row_kept'] / 1000:.1f} KB for each row kept",
        f"{RESULTS['contamination']['slipped_in']} such rows",
        f"{packing['padding_packed']:.1%} of the positions",
        f"against {packing['padding_padded']:.1%}",
        f"{packing['saved']:.1%} fewer",
        f"{store['tokens'] // 10**6} million tokens",
        f"{store['memory'] / 1e6:.0f} MB of memory",
    ):
        assert figure in " ".join(page.split()), figure
