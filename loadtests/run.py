"""``trimaran loadtest``: load an endpoint, measure, judge, write the results."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtests.arrivals.schedule import make_schedule
from loadtests.comparison import Comparison
from loadtests.config import LoadTestConfig
from loadtests.config_json import config_to_json
from loadtests.credentials import read_credentials
from loadtests.errors import ConfigError
from loadtests.machine import machine_facts
from loadtests.measurement import Measurement, measure, measured_window
from loadtests.output import RECORDS_NAME, check_free, default_output, output_directory
from loadtests.process import LoadRun, run_child
from loadtests.record import Record, read_records
from loadtests.report.junit import junit_xml
from loadtests.report.markdown import markdown_summary
from loadtests.report.page import render_report
from loadtests.requests_csv import CSV_NAME, RequestsCsv, requests_csv
from loadtests.result import LoadTestResult, results_dict
from loadtests.server_metrics.scraper import Scraper
from loadtests.server_metrics.summary import NOT_READ, server_metrics
from loadtests.slo import Verdict, judge
from loadtests.slo_names import settings_of
from loadtests.validity import (
    cpu_notes,
    lag_notes,
    lag_problems,
    lateness_problems,
    uncounted_notes,
    unended_notes,
)
from loadtests.workloads.source import check_workload_files

if TYPE_CHECKING:
    from loadtests.baseline import Baseline

__all__ = ["check_files", "judge_measurement", "run_load_test", "write_everything"]

logger = logging.getLogger(__name__)


def run_load_test(config: LoadTestConfig) -> LoadTestResult:
    """Run the load test and write ``results.json``, the requests, ``report.html`` and two summaries.

    The load is made by Locust in a process of its own. The caller decides what a failed verdict
    means; nothing is raised for it.

    Raises:
        LoadTestError: a setting, a file it names, the endpoint or the output cannot be used. Nothing
            is written then.
    """
    check_files(config)
    started = datetime.now(UTC)
    target = config.output or default_output(started.astimezone())
    check_free(target, overwrite=config.overwrite)
    with output_directory(target, overwrite=config.overwrite) as directory, Scraper(config) as scraper:
        run = run_child(config, config_to_json(config), directory / RECORDS_NAME)
        scraper.stop()
        result = write_everything(directory, config, run, started, scraper)
    logger.info("load test results are in %s", target)
    return replace(result, output=target)


def check_files(config: LoadTestConfig) -> None:
    """Read every file that the settings name: a typing error in line 900 should not wait for the endpoint.

    Raises:
        LoadTestError: one of them cannot be used.
    """
    check_workload_files(config)
    read_credentials(config)
    make_schedule(config)
    _baseline(config)
    if config.plots and find_spec("matplotlib") is None:
        raise ConfigError("plots: they need matplotlib; pip install matplotlib, or leave --plots out")


def write_everything(
    directory: Path,
    config: LoadTestConfig,
    run: LoadRun,
    started: datetime,
    scraper: Scraper | None = None,
) -> LoadTestResult:
    """Measure the records in ``directory``, judge them, and write everything else there.

    Args:
        directory: holds the records.
        config: the settings.
        run: what is known of the load beside its records.
        started: when it began.
        scraper: has read the server's metrics; it was stopped.
    """
    outcomes, objectives = Counter[str](), config.objectives()
    window = measured_window(config.warmup_ns, run.end_ns, config.cooldown_ns)
    with requests_csv(directory / CSV_NAME, window, objectives) as rows:
        measurement = measure(
            _written(read_records(directory / RECORDS_NAME), rows, outcomes),
            warmup_ns=config.warmup_ns,
            end_ns=run.end_ns,
            user_counts=run.user_counts,
            cooldown_ns=config.cooldown_ns,
            objectives=objectives,
        )
    baseline = _baseline(config)
    comparisons, problems = _compare(config, baseline, directory / RECORDS_NAME, measurement)
    lost = [f"the run is incomplete: {note}" for note in run.notes]
    seconds = measurement.window.seconds
    problems = [*lag_problems(config, run.lags, seconds), *lost, *problems]
    verdict = judge_measurement(config, measurement, comparisons, problems)
    notes = [
        *run.notes,
        *cpu_notes(run.cpu_seconds, run.end_ns, len(run.workers)),
        *lag_notes(config, run.lags, seconds),
        *unended_notes(measurement),
        *uncounted_notes(config, outcomes["uncounted"], outcomes["ok"]),
    ]
    results = results_dict(
        measurement,
        verdict,
        started=started.isoformat(timespec="seconds"),
        ended_by=run.ended_by,
        cpu_seconds=run.cpu_seconds,
        loop_lag=run.loop_lag,
        workers=run.workers,
        notes=notes,
        config=config_to_json(config),
        server=run.server,
        machine=machine_facts(),
        server_metrics=_server_metrics(scraper, run, measurement, outcomes["ok"]),
    )
    text = json.dumps(results, indent=2, ensure_ascii=False)
    (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    page = render_report(results, measurement.distributions, None if baseline is None else baseline.results)
    (directory / "report.html").write_text(page, encoding="utf-8")
    (directory / "summary.md").write_text(markdown_summary(results), encoding="utf-8")
    (directory / "junit.xml").write_text(junit_xml(results), encoding="utf-8")
    if config.plots:
        from loadtests.report.plots import write_plots

        write_plots(directory / "plots", results, measurement.distributions)
    interrupted = run.ended_by == "interrupt"
    return LoadTestResult(verdict, measurement, directory, interrupted=interrupted, notes=tuple(notes))


def judge_measurement(
    config: LoadTestConfig,
    measurement: Measurement,
    comparisons: Sequence[Comparison] = (),
    problems: Sequence[str] = (),
) -> Verdict:
    """Hold the limits of ``config`` against a measurement.

    Args:
        config: the settings.
        measurement: the numbers.
        comparisons: with the baseline.
        problems: why the run does not count, beside its lateness.
    """
    return judge(
        config.latency_limits(),
        config.failure_limit,
        measurement.summaries,
        measurement.totals["failure_rate"],
        measurement.counts["ok"],
        min_goodput=config.goodput_limit,
        goodput=measurement.totals["goodput"],
        invalid=[*lateness_problems(config, measurement), *problems],
        comparisons=comparisons,
        floors=measurement.floors,
        settings=settings_of(config.slo),
    )


def _written(records: Iterable[Record], rows: RequestsCsv, outcomes: Counter[str]) -> Iterator[Record]:
    """Pass requests on, and write and count them by the way: they are read once."""
    for record in records:
        rows.add(record)
        outcomes[record.outcome] += 1
        outcomes["uncounted"] += record.outcome == "ok" and record.completion_tokens is None
        yield record


def _server_metrics(
    scraper: Scraper | None, run: LoadRun, measurement: Measurement, answered: int
) -> dict[str, Any]:
    if scraper is None or run.origin_ns is None:
        return NOT_READ
    return server_metrics(
        scraper.snapshots(),
        origin_ns=run.origin_ns,
        window=measurement.window,
        urls=scraper.urls,
        interval_s=scraper.interval_s,
        answered=answered,
        notes=scraper.notes,
    )


def _baseline(config: LoadTestConfig) -> Baseline | None:
    if config.baseline is None:
        return None
    from loadtests.baseline import read_baseline

    return read_baseline(config)


def _compare(
    config: LoadTestConfig, baseline: Baseline | None, records: Path, measurement: Measurement
) -> tuple[list[Comparison], list[str]]:
    """Return the comparisons with the baseline, or why there are none although one is named."""
    if baseline is None:
        return [], []
    from loadtests.baseline import compare

    found = compare(baseline, read_records(records), measurement, config.max_regression)
    if found:
        return found, []
    answered = measurement.counts["ok"]
    return [], [f"the run is invalid: {answered} answered requests are too few to compare with the baseline"]
