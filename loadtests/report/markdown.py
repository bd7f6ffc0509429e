"""A summary in Markdown, for a pull request or the page of a CI job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.report.lines import check_lines
from loadtests.report.server_charts import server_rows
from loadtests.report.texts import failure_rows, load_text, metric_rows, tiles
from loadtests.slo import untold

__all__ = ["markdown_summary"]

_COLUMNS = ("count", "mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max")
_SHOWN = ("p50", "p95", "p99", "p99.9", "max")


def markdown_summary(results: Mapping[str, Any]) -> str:
    """Return the verdict, the figures, the limits and the failures.

    Args:
        results: the content of ``results.json``.
    """
    config, verdict = results["config"], results["verdict"]
    said = [*verdict["reasons"], *untold(results["notes"], verdict["reasons"])]
    mark = {"passed": "passed", "failed": "**failed**", "invalid": "**invalid**"}[verdict["outcome"]]
    lines = [
        f"### Load test of `{config['model']}`: {mark}",
        "",
        f"{load_text(config)} on `{_plain(config['url'])}` through `{config['protocol']}`, "
        f"{results['window']['seconds']:.0f} s measured.",
        "",
        *(f"- {_plain(text)}" for text in said),
        *([""] if said else []),
        *_table(
            ("", "", ""),
            [(t["label"], f"{t['value']} {t['unit']}".strip(), t["note"]) for t in tiles(results)],
        ),
        "",
        *_table(("", *_SHOWN), _latencies(results)),
        "",
        *_table(("limit", "", ""), _checks(results)),
    ]
    if server := server_rows(results):
        lines += ["", *_table(("the server's side", ""), server)]
    if failures := failure_rows(results):
        rows = [(row["kind"], str(row["count"]), "; ".join(row["examples"])) for row in failures]
        lines += ["", *_table(("failure", "requests", "said"), rows)]
    return "\n".join(lines) + "\n"


def _latencies(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the percentiles of what was measured."""
    shown = [_COLUMNS.index(name) for name in _SHOWN]
    return [
        (row["name"], *(row["cells"][index] for index in shown))
        for row in metric_rows(results)
        if row["measured"]
    ]


def _checks(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [(line.name, "holds" if line.passed else "**broken**", line.text) for line in check_lines(results)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        "|" + "---|" * len(header),
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
    ]


def _cell(text: str) -> str:
    """Return a text that cannot end its cell, whatever a server said."""
    return text if text.startswith("**") else _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return a text in one line, without markup: what a server said may hold any."""
    return (
        " ".join(text.split()).replace("<", "&lt;").replace("`", "'").replace("[", "\\[").replace("*", "\\*")
    )
