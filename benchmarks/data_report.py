"""The results of ``benchmarks.data`` as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["render_data"]


def render_data(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    machine, source = results["machine"], results["source"]
    cleaning, contamination = results["cleaning"], results["contamination"]
    packing, store = results["packing"], results["store"]
    dropped = ", ".join(f"{rule} {count}" for rule, count in cleaning["dropped"].items()) or "none"
    figures = {
        "rows cleaned per second, one core": f"{cleaning['rows_per_second']:,.0f}",
        "rows kept": f"{cleaning['kept']:,} of {source['rows']:,} (dropped: {dropped})",
        "words of these": f"{cleaning['words']:,}",
        "memory for each row kept": f"{cleaning['bytes_per_row_kept']:,} bytes",
        "without near duplicates": f"{cleaning['bytes_per_row_without_near_duplicates']:,} bytes",
        "evaluation rows": f"{contamination['evaluation_rows']:,}",
        "rows that have text of these": f"{contamination['among_the_rows']:,}",
        "slipped in, each question with 12 answers": f"{contamination['slipped_in']:,}",
        "of these found": f"{contamination['found']:,}",
        "rows encoded per second": f"{packing['rows_encoded_per_second']:,.0f}",
        f"padding, {packing['batch_size']} rows a batch": f"{packing['padding_padded']:.1%}",
        f"padding, packed to {packing['length']:,}": f"{packing['padding_packed']:.1%}",
        "fewer positions to compute": f"{packing['saved']:.1%}",
        f"memory to write and read {store['tokens']:,} tokens": f"{store['memory'] / 1e6:.1f} MB",
    }
    return "\n".join(
        [
            "# Training data",
            "",
            f"Made by `python -m benchmarks.data {source['name']}` on {machine['cpu']}, {machine['cores']} "
            f"cores. {source['rows']:,} rows, sha256 {source['sha256']}; the evaluation sets are rows of "
            "GSM8K's test split and HumanEval; the tokenizer is SmolLM2's.",
            "",
            "| | |",
            "|---|---:|",
            *(f"| {name} | {figure} |" for name, figure in figures.items()),
            "",
        ]
    )
