"""The result of a load test, and the schema of ``results.json``.

::

    schema_version     1
    started            ISO 8601, UTC
    config             the settings, as given (LoadTestConfig)
    server             name and version of the server, loaded versions of the model
    machine            the machine that made the load: cpu, cores, memory, system, versions
    window             start_ns, end_ns since the load began; seconds; ended_by (duration | max_requests |
                       schedule | interrupt)
    requests           ok, failed, cut (in flight at the end; one that hung is failed), unsent (due in an open
                       loop, but no user was free until the end), warmup and cooldown (asked for before and
                       after the window)
    metrics            per request metric (ttft, itl, tpot, e2e, lateness, queueing_delay, output_tokens,
                       prompt_tokens): header, unit (ns | tokens), count, mean, min, p50, p90, p95, p99,
                       p999 (99.9), max and histogram (an HdrHistogram: V2, compressed, base64); null
                       where there is no sample
    totals             per run metric: header, unit and value (null where undefined):
                       output_tokens_per_second, output_tokens_per_second_per_user,
                       prompt_tokens_per_second, requests_per_second, failure_rate, goodput,
                       goodput_requests_per_second
    failures           per kind: kind, meaning, count, examples [start_ns, detail]
    series             per second: start_s, seconds, users, in_flight, requests, failures, output_tokens
    latency_series     seconds per piece, and pieces: start_s; ttft (of the requests asked for in it) and itl
                       (of the gaps that ended in it), each count, p50, p95, p99 (within 1 %), or null
    load_generator     cpu_seconds of all processes, cpu_cores they kept busy on average (null for a load of
                       no length) and cpu_ms_per_1k_tokens (null without tokens); loop_lag (count, p50, p95,
                       p99, max: how late all processes saw what came to them; null where unknown);
                       workers [name, index, requests, cpu_seconds, clock_shift_ns, loop_lag (its own),
                       finished], empty for one process
    server_metrics     what the server's Prometheus endpoint said (``server_metrics/summary.py``): urls,
                       interval_s, scrapes, failed_scrapes, resets_s (restarts that were seen), notes;
                       engines (what answered, by its trimaran_engine_info); window, whole_run (both null
                       where nothing was read) and series
    notes              what made the load another one than was asked for, such as a lost worker
    verdict            outcome (passed | failed | invalid), passed, reasons, invalid (those of the reasons
                       that make the run invalid), checks [name, setting, limit, measured, unit, at_least,
                       passed, unended (samples of measured that are the least which requests without an end
                       would have taken)], comparisons with the baseline [name, unit, baseline, measured,
                       change, low, high, limit, passed]

Times are integer nanoseconds unless the key says seconds. Percentiles are nearest-rank, at most 0.1 % below a
sample (``metrics/distribution.py``). ``requests.jsonl`` beside it has the raw records (``record.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.durations import format_duration
from loadtests.failures import FAILURE_KINDS
from loadtests.loop_lag import lag_in_brief
from loadtests.measurement import Measurement
from loadtests.metrics.catalog import request_metrics, run_metrics
from loadtests.metrics.client_cpu import ClientCpu
from loadtests.slo import Verdict, untold

__all__ = ["SCHEMA_VERSION", "LoadTestResult", "results_dict"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LoadTestResult:
    """What ``run_load_test`` returns: the numbers, the verdict, and where the files are."""

    verdict: Verdict
    measurement: Measurement
    output: Path
    """Directory of the files below."""
    interrupted: bool = False
    """Whether the load was cut short; the verdict is then of the part that ran."""
    notes: tuple[str, ...] = ()
    """What else to know of the numbers, a line each."""

    @property
    def passed(self) -> bool:
        """Whether every limit holds; the command's exit code is 1 when it is false, 4 for an invalid run."""
        return self.verdict.passed

    @property
    def remarks(self) -> list[str]:
        """The notes that no reason of the verdict tells already."""
        return untold(self.notes, self.verdict.reasons)

    @property
    def results_json(self) -> Path:
        """The numbers, by the schema above."""
        return self.output / "results.json"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.output / "report.html"

    @property
    def summary_md(self) -> Path:
        """The verdict and the figures, for a pull request."""
        return self.output / "summary.md"

    @property
    def junit_xml(self) -> Path:
        """The verdict as test cases, for a CI."""
        return self.output / "junit.xml"

    @property
    def requests_jsonl(self) -> Path:
        """The raw records."""
        return self.output / "requests.jsonl"

    def __str__(self) -> str:
        """Return the summary for the terminal: the numbers, the verdict, the path of the report."""
        counts, totals = self.measurement.counts, self.measurement.totals
        lines = [
            f"{counts['ok']} requests answered, {counts['failed']} failed, {counts['cut']} cut at the end",
            f"{totals['output_tokens_per_second'] or 0:.1f} tokens/s, "
            f"{totals['requests_per_second'] or 0:.2f} requests/s",
        ]
        for metric in request_metrics():
            summary = self.measurement.summaries[metric.tag]
            if metric.unit == "ns" and summary is not None:
                numbers = "  ".join(
                    f"{name} {format_duration(getattr(summary, name))}" for name in ("p50", "p95", "p99")
                )
                lines.append(f"{metric.header:<20} {numbers}")
        lines += [
            f"{group.count} x {group.kind}: {group.examples[0][1]}" for group in self.measurement.failures
        ]
        lines.append(
            "passed" if self.passed else f"{self.verdict.outcome.upper()}: " + "; ".join(self.verdict.reasons)
        )
        lines += [f"note: {note}" for note in self.remarks]
        lines.append(f"report: {self.report_html}")
        return "\n".join(lines)


def results_dict(
    measurement: Measurement,
    verdict: Verdict,
    *,
    started: str,
    ended_by: str,
    cpu_seconds: float,
    loop_lag: Mapping[str, Any] | None,
    workers: list[dict[str, Any]],
    notes: list[str],
    config: dict[str, Any],
    server: dict[str, Any],
    machine: dict[str, object],
    server_metrics: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of ``results.json``."""
    tokens = sum(bucket.output_tokens for bucket in measurement.series)
    seconds = sum(bucket.seconds for bucket in measurement.series)
    window = measurement.window
    summaries = measurement.summaries
    return {
        "schema_version": SCHEMA_VERSION,
        "started": started,
        "config": config,
        "server": server,
        "machine": machine,
        "window": {
            "start_ns": window.start_ns,
            "end_ns": window.end_ns,
            "seconds": window.seconds,
            "ended_by": ended_by,
        },
        "requests": measurement.counts,
        "metrics": {
            metric.tag: None
            if (summary := summaries[metric.tag]) is None
            else {"header": metric.header, "unit": metric.unit, **summary.as_dict()}
            for metric in request_metrics()
        },
        "totals": {
            metric.tag: {
                "header": metric.header,
                "unit": metric.unit,
                "value": measurement.totals[metric.tag],
            }
            for metric in run_metrics()
        },
        "failures": [
            {
                "kind": group.kind,
                "meaning": FAILURE_KINDS[group.kind],
                "count": group.count,
                "examples": group.examples,
            }
            for group in measurement.failures
        ],
        "series": [bucket.as_dict() for bucket in measurement.series],
        "latency_series": measurement.latency_series,
        "load_generator": {
            **ClientCpu(cpu_seconds, seconds, tokens).as_dict(),
            "loop_lag": lag_in_brief(loop_lag),
            "workers": workers,
        },
        "server_metrics": server_metrics,
        "notes": notes,
        "verdict": verdict.as_dict(),
    }
