"""The documented capabilities are those of the code."""

from __future__ import annotations

from pathlib import Path

from serving.capabilities import render_capabilities, replace_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "engines.md"


def test_the_documented_tables_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert render_capabilities() in text, "run: python -m serving.capabilities"
    assert replace_tables(text) == text
