"""The pages beside the report: a sweep's, a history's, and that of a sweep over serving configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.history.config import HistoryConfig
from loadtests.history.run import history
from loadtests.sweep.config import SweepConfig
from loadtests.sweep.page import render_sweep
from loadtests.sweep.point import Point
from loadtests.sweep.result import SweepResult
from tests.loadtests.browser import look
from tests.loadtests.sample_run import MS, write_run
from trimaran.sweep.config import ServingSweepConfig
from trimaran.sweep.page import render_page
from trimaran.sweep.result import Outcome, ServingSweepResult

STARTED = "2026-01-02T03:04:05+00:00"


def curve(capacity: float) -> list[Point]:
    """Return the points of a server that gives so many tokens per second and then only gets later."""
    found = []
    for load in (1, 2, 4, 8, 16, 32):
        rate, waited = min(40.0 * load, capacity), max(0.0, load - capacity / 40)
        ttft = round((45 + 110 * waited) * MS)
        broken = ttft > 500 * MS
        found.append(
            Point(
                load=load, directory=f"points/{load}", requests=30 * load, failures=int(load == 32),
                outcome="invalid" if load == 32 else "failed" if broken else "passed",
                reasons=(f"ttft p95 {ttft // MS} ms is above 500 ms (slo: ttft_p95)",) if broken else (),
                output_tokens_per_second=rate, requests_per_second=rate / 40, ttft_p50_ns=ttft // 2,
                ttft_p95_ns=ttft, itl_p99_ns=30 * MS, e2e_p95_ns=ttft + 1000 * MS, goodput=0.97,
            )
        )  # fmt: skip
    return found


def sweep(folder: Path, capacity: float) -> SweepResult:
    config = SweepConfig(over="concurrency", slo="ttft_p95=500ms,goodput=95%", output=folder)
    points = curve(capacity)
    return SweepResult(config, STARTED, points, config.search().conclude(points), folder)


def sweep_page(folder: Path) -> str:
    return render_sweep(sweep(folder, 290))


def history_page(folder: Path) -> str:
    for seed in range(1, 5):
        limit = "100ms" if seed == 3 else "9s"
        write_run(folder / f"runs/night-{seed}", seed=seed, slower=1 + seed / 10, max_ttft_p50=limit)
    write_run(folder / "runs/more-users", seed=9, users=32)
    history(HistoryConfig(folder / "runs", page=folder / "history.html"))
    return (folder / "history.html").read_text(encoding="utf-8")


def serving_page(folder: Path) -> str:
    config = ServingSweepConfig(
        checkpoint=folder / "merged", output=folder, loads=[1, 2, 4, 8, 16, 32], max_ttft_p95="500ms",
        grid={"engine": ["openvino"], "weights": ["fp32", "int8"], "slots": [8, 32]},
        configurations=[{"engine": "onnx", "weights": "nf4"}],
    )  # fmt: skip
    *served, refused = config.candidates()
    outcomes = [
        Outcome(one, f"configurations/{number}", sweep(folder, 160 + 60 * number))
        for number, one in enumerate(served)
    ]
    error = "onnx has no nf4 weights; accepted: fp32, int8, int4 (--weights), or another --engine"
    return render_page(
        ServingSweepResult(
            config, STARTED, folder, [*outcomes, Outcome(refused, "configurations/x", None, error)]
        )
    )


@pytest.mark.parametrize(
    ("page", "charts"),
    [(sweep_page, 3), (history_page, 4), (serving_page, 1)],
    ids=("sweep", "history", "serving"),
)
def test_nothing_overlaps_or_overflows_and_all_can_be_read(
    page: Callable[[Path], str], charts: int, tmp_path: Path
) -> None:
    source = page(tmp_path)
    # Each in one mode at each width; the colours are those of the report, which is looked at in all four.
    for mode, width in (("light", 1280), ("dark", 390)):
        found = look(tmp_path / "page.html", "checked", source, mode, width)
        assert found["problems"] == []
        assert found["charts"] == charts
        assert found["seen"] > 30
