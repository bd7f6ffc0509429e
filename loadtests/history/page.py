"""The page of trends: per load a chart of each main figure, and the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from loadtests.history.runs import Run
from loadtests.history.table import HEADER, figures
from loadtests.report.charts import Chart, short_duration_ns
from loadtests.report.page import page_template
from loadtests.report.scale import trim
from loadtests.report.timeline import Track
from loadtests.report.trend import trend_chart

__all__ = ["history_page"]

# Title, caption, (line, field, colour), whether it is a time.
_CHARTS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...], bool], ...] = (
    ("Output tokens", "per second", (("tokens/s", "output_tokens_per_second", "one"),), False),
    ("Time to first token", "", (("p50", "ttft_p50", "one"), ("p95", "ttft_p95", "two")), True),
    ("Inter-token latency", "", (("p50", "itl_p50", "one"), ("p99", "itl_p99", "two")), True),
    ("End-to-end latency", "", (("p50", "e2e_p50", "one"), ("p95", "e2e_p95", "two")), True),
)


def history_page(runs: Sequence[Run], folder: Path) -> str:
    """Return the page, which needs no other file and no network. There must be a run."""
    groups = []
    for model, load in dict.fromkeys((run.model, run.load) for run in reversed(runs)):
        members = [run for run in runs if (run.model, run.load) == (model, load)]
        rows: list[dict[str, Any]] = [
            {
                "name": run.path.name,
                "started": run.started[:16].replace("T", " "),
                "figures": figures(run)[:-1],
                "outcome": run.outcome,
                "reasons": run.reasons,
            }
            for run in members
        ]
        charts = _charts(members) if len(members) > 1 else []  # one run is no trend
        groups.append({"model": model, "load": load, "rows": rows[::-1], "charts": charts})
    return page_template(Path(__file__).with_name("page.html")).render(
        folder=str(folder),
        count=len(runs),
        newest=runs[-1].started[:16].replace("T", " "),
        header=HEADER[:-1],
        groups=groups,
    )


def _charts(runs: Sequence[Run]) -> list[Chart]:
    labels = _labels([run.started for run in runs])
    found = []
    for title, caption, lines, is_time in _CHARTS:
        tracks = [Track(name, [getattr(run, field) for run in runs], colour) for name, field, colour in lines]
        tracks = [track for track in tracks if any(value is not None for value in track.values)]
        if not tracks:
            continue
        show: Callable[[float], str] = short_duration_ns if is_time else (lambda value: trim(round(value, 1)))
        drawn = trend_chart(
            labels,
            tracks,
            title,
            show,
            passed=[run.outcome == "passed" for run in runs],
            tick_unit=1e6 if is_time else 1.0,
        )
        legend = tuple((track.name, track.css_class) for track in tracks) if len(tracks) > 1 else ()
        found.append(Chart(title, caption, Markup(drawn), legend))
    return found


def _labels(started: Sequence[str]) -> list[str]:
    """Return the days, or the times of day where all are of one day."""
    if len({when[:10] for when in started}) == 1:
        return [when[11:16] for when in started]
    return [f"{when[5:10]} {when[11:16]}" for when in started]
