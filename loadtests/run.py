"""``trimaran loadtest``: load an endpoint, measure, judge, write the results."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from loadtests.arrivals.schedule import make_schedule
from loadtests.config import LoadTestConfig
from loadtests.config_json import config_to_json
from loadtests.machine import machine_facts
from loadtests.measurement import Measurement, measure
from loadtests.output import check_free, default_output, output_directory
from loadtests.process import LoadRun, run_child
from loadtests.prompts import load_prompts
from loadtests.record import read_records
from loadtests.report.page import render_report
from loadtests.result import LoadTestResult, results_dict
from loadtests.slo import Verdict, judge
from loadtests.validity import lateness_problems

__all__ = ["RECORDS_NAME", "judge_measurement", "run_load_test", "write_everything"]

logger = logging.getLogger(__name__)
RECORDS_NAME = "requests.jsonl"


def run_load_test(config: LoadTestConfig) -> LoadTestResult:
    """Run the load test and write ``results.json``, ``requests.jsonl`` and ``report.html``.

    The load is made by Locust in a process of its own. The caller decides what a failed verdict
    means; nothing is raised for it.

    Raises:
        LoadTestError: a setting, the prompts, the endpoint or the output cannot be used. Nothing
            is written then.
    """
    # A typing error in line 900 should not wait for the endpoint.
    load_prompts(config.prompts)
    make_schedule(config)
    started = datetime.now(UTC)
    target = config.output or default_output(started.astimezone())
    check_free(target, overwrite=config.overwrite)
    with output_directory(target, overwrite=config.overwrite) as directory:
        run = run_child(config, config_to_json(config), directory / RECORDS_NAME)
        result = write_everything(directory, config, run, started)
    logger.info("load test results are in %s", target)
    return replace(result, output=target)


def write_everything(
    directory: Path, config: LoadTestConfig, run: LoadRun, started: datetime
) -> LoadTestResult:
    """Measure the records in ``directory``, judge them, write ``results.json`` and ``report.html`` there."""
    records = list(read_records(directory / RECORDS_NAME))
    measurement = measure(records, warmup_ns=config.warmup_ns, end_ns=run.end_ns, user_counts=run.user_counts)
    verdict = judge_measurement(config, measurement)
    results = results_dict(
        measurement,
        verdict,
        started=started.isoformat(timespec="seconds"),
        ended_by=run.ended_by,
        cpu_seconds=run.cpu_seconds,
        workers=run.workers,
        notes=run.notes,
        config=config_to_json(config),
        server=run.server,
        machine=machine_facts(),
    )
    text = json.dumps(results, indent=2, ensure_ascii=False)
    (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    (directory / "report.html").write_text(render_report(results, measurement.samples), encoding="utf-8")
    return LoadTestResult(verdict, measurement, directory, interrupted=run.ended_by == "interrupt")


def judge_measurement(config: LoadTestConfig, measurement: Measurement) -> Verdict:
    """Hold the limits of ``config`` against a measurement."""
    return judge(
        config.latency_limits(),
        config.max_failure_rate,
        measurement.summaries,
        measurement.totals["failure_rate"],
        measurement.counts["ok"],
        lateness_problems(config, measurement),
    )
