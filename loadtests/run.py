"""``trimaran loadtest``: load an endpoint, measure, judge, write the results."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

from loadtests.config import LoadTestConfig
from loadtests.config_json import config_to_json
from loadtests.machine import machine_facts
from loadtests.measurement import Measurement, measure
from loadtests.output import check_free, default_output, output_directory
from loadtests.process import run_child
from loadtests.prompts import load_prompts
from loadtests.record import read_records
from loadtests.report.page import render_report
from loadtests.result import LoadTestResult, results_dict
from loadtests.slo import Verdict, judge

__all__ = ["judge_measurement", "run_load_test", "write_results"]

logger = logging.getLogger(__name__)


def run_load_test(config: LoadTestConfig) -> LoadTestResult:
    """Run the load test and write ``results.json``, ``requests.jsonl`` and ``report.html``.

    The load is made by Locust in a process of its own. The caller decides what a failed verdict
    means; nothing is raised for it.

    Raises:
        LoadTestError: a setting, the prompts, the endpoint or the output cannot be used. Nothing
            is written then.
    """
    load_prompts(config.prompts)  # a typing error in line 900 should not wait for the endpoint
    started = datetime.now(UTC)
    target = config.output or default_output(started.astimezone())
    check_free(target, overwrite=config.overwrite)
    config_json = config_to_json(config)
    with output_directory(target, overwrite=config.overwrite) as directory:
        records_path = directory / "requests.jsonl"
        run = run_child(config, config_json, records_path)
        records = list(read_records(records_path))
        measurement = measure(
            records, warmup_ns=config.warmup_ns, end_ns=run.end_ns, user_counts=run.user_counts
        )
        verdict = judge_measurement(config, measurement)
        results = results_dict(
            measurement,
            verdict,
            started=started.isoformat(timespec="seconds"),
            ended_by=run.ended_by,
            cpu_seconds=run.cpu_seconds,
            config=config_json,
            server=run.server,
            machine=machine_facts(),
        )
        write_results(directory, results, measurement)
    logger.info("load test results are in %s", target)
    return LoadTestResult(verdict, measurement, target)


def judge_measurement(config: LoadTestConfig, measurement: Measurement) -> Verdict:
    """Hold the limits of ``config`` against a measurement."""
    return judge(
        config.latency_limits(),
        config.max_failure_rate,
        measurement.summaries,
        measurement.totals["failure_rate"],
        measurement.counts["ok"],
    )


def write_results(directory: Path, results: dict[str, object], measurement: Measurement) -> None:
    """Write ``results.json`` and ``report.html``."""
    text = json.dumps(results, indent=2, ensure_ascii=False)
    (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    (directory / "report.html").write_text(render_report(results, measurement.samples), encoding="utf-8")
