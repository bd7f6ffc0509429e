"""The numbers of a run as the texts that the page shows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from loadtests.durations import format_duration
from loadtests.metrics.catalog import request_metrics, run_metrics
from loadtests.metrics.client_cpu import ClientCpu
from loadtests.metrics.metric import RequestMetric, RunMetric
from loadtests.report.endpoint_facts import endpoint_facts
from loadtests.workloads.text import generation_text, prompts_text

__all__ = [
    "check_rows", "comparison_rows", "facts", "failure_rows", "load_text", "metric_rows", "notes", "tiles",
    "verdict_text",
]  # fmt: skip

_STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "p999", "max")
_MISSING = "–"


def tiles(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the big numbers: label, value, unit, small print, and a tone where it is bad."""
    totals = {tag: total["value"] for tag, total in results["totals"].items()}
    found: list[dict[str, str]] = [
        _tile("Output tokens/s", _number(totals["output_tokens_per_second"]), "", _tokens_note(results)),
        _tile(
            "Requests/s",
            _number(totals["requests_per_second"]),
            "",
            f"{results['requests']['ok']:,} answered",
        ),
    ]
    for tag, label, second in (
        ("ttft", "First token", "p95"),
        ("itl", "Token gap", "p99"),
        ("e2e", "Whole answer", "p95"),
    ):
        summary = results["metrics"][tag]
        if summary is None:
            found.append(_tile(label, _MISSING, "", "not measured"))
        else:
            value, unit = format_duration(summary["p50"]).split(" ")
            found.append(_tile(label, value, unit, f"median · {second} {format_duration(summary[second])}"))
    if totals["goodput"] is not None:
        note = f"{_number(totals['goodput_requests_per_second'])} requests/s within the objectives"
        found.append(_tile("Goodput", f"{100 * totals['goodput']:.1f}", "%", note))
    if (lateness := results["metrics"]["lateness"]) is not None:
        value, unit = format_duration(lateness["p99"]).split(" ")
        note = f"p99 · limit {results['config']['max_lateness_p99']}"
        found.append(_tile("Sent late", value, unit, note, "bad" if results["verdict"]["invalid"] else ""))
    requests = results["requests"]
    tried = requests["failed"] + requests["ok"]
    rate = totals["failure_rate"]
    note = (f"{100 * rate:.2g} % " if rate else "") + f"of {tried:,} requests"
    found.append(_tile("Failed", f"{requests['failed']:,}", "", note, "bad" if requests["failed"] else ""))
    return found


def verdict_text(results: Mapping[str, Any]) -> str:
    """Return what the verdict rests on, in a sentence."""
    verdict, requests = results["verdict"], results["requests"]
    of = f"{requests['ok']:,} requests were answered and {requests['failed']:,} failed"
    if verdict["invalid"]:
        return f"This was not the load that was asked for, so no number of it counts. {of}."
    broken = sum(not check["passed"] for check in verdict["checks"])
    limits = len(verdict["checks"])
    held = "The limit holds" if limits == 1 else f"All {limits} limits hold"
    first = f"{broken} of {limits} limits broken" if broken else held
    if compared := verdict["comparisons"]:
        worse = sum(not row["passed"] for row in compared)
        first += (
            f"; {worse} of {len(compared)} figures worse than the baseline"
            if worse
            else ("; nothing is worse than the baseline")
        )
    return f"{first}. {of}."


def load_text(config: Mapping[str, Any]) -> str:
    """Return the load in a few words, such as ``8 users`` or ``Poisson arrivals at 20/s``."""
    if config["arrivals"] == "closed":
        return f"{config['users']} users"
    if config["arrivals"] == "trace":
        speed = "" if config["trace_speed"] == 1 else f" at {config['trace_speed']:g} times its speed"
        return f"a replayed trace{speed}"
    burstiness = f" of burstiness {config['burstiness']:g}" if config["burstiness"] is not None else ""
    return f"{config['arrivals']} arrivals{burstiness} at {config['rate']}/s"


def metric_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the percentile table."""
    rows = []
    for metric in request_metrics():
        summary = results["metrics"][metric.tag]
        if summary is None:
            cells = [_MISSING] * (len(_STATISTICS) + 1)
        else:
            show = (
                format_duration if metric.unit == "ns" else lambda value: f"{value:,.1f}".removesuffix(".0")
            )
            cells = [f"{summary['count']:,}", *(show(summary[name]) for name in _STATISTICS)]
        rows.append({"name": metric.header, "cells": cells, "measured": summary is not None})
    return rows


def check_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the limits beside what was measured."""

    def show(value: float | None, unit: str) -> str:
        if value is None:
            return _MISSING
        return f"{100 * value:.2f} %" if unit == "share" else format_duration(value)

    return [
        {
            "name": check["name"],
            "setting": check["setting"],
            "limit": show(check["limit"], check["unit"]),
            "measured": show(check["measured"], check["unit"]),
            "passed": check["passed"],
            "word": "at least" if check["at_least"] else "at most",
        }
        for check in results["verdict"]["checks"]
    ]


def comparison_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every number beside the baseline's, with the interval of the change."""
    rows = []
    for row in results["verdict"]["comparisons"]:
        show = format_duration if row["unit"] == "ns" else lambda value: f"{value:,.1f}"
        rows.append(
            {
                "name": row["name"],
                "baseline": show(row["baseline"]),
                "measured": show(row["measured"]),
                "change": f"{100 * row['change']:+.1f} %",
                "interval": f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f} %",
                "passed": row["passed"],
            }
        )
    return rows


def failure_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the failures by kind, each with examples and when they happened."""
    return [
        {
            **group,
            "examples": [f"at {start_ns / 1e9:.1f} s: {detail}" for start_ns, detail in group["examples"]],
        }
        for group in results["failures"]
    ]


def facts(results: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the facts of the run in groups of (name, value)."""
    config, machine, requests = results["config"], results["machine"], results["requests"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    generator = results["load_generator"]
    cost = generator["cpu_ms_per_1k_tokens"]
    window = results["window"]
    low_s, high_s = window["start_ns"] / 1e9, window["end_ns"] / 1e9
    closed = config["arrivals"] == "closed"
    workload = [
        ("Loop", "closed" if closed else f"open, {load_text(config)}"),
        (
            "Users",
            f"{config['users']}, each waits for its answer" if closed else f"at most {config['users']} busy",
        ),
        ("Prompts", prompts_text(config)),
        ("Generation", generation_text(config)),
        (
            "Measured",
            f"{low_s:.1f} to {high_s:.1f} s, ended by {window['ended_by']}",
        ),
        (
            "Not measured",
            f"{requests['warmup']} in the warm-up, {requests['cut']} cut at the end"
            + (f", {requests['cooldown']} in the cool-down" if requests["cooldown"] else "")
            + (f", {requests['unsent']} never sent" if requests["unsent"] else ""),
        ),
    ]
    client = [
        ("Processor", f"{machine['cpu']}, {machine['cores']} cores"),
        ("Memory", f"{machine['memory_bytes'] / 2**30:.0f} GiB"),
        ("System", f"{machine['system']}, Python {machine['python']}"),
        ("Tools", versions or _MISSING),
        (
            "Own cost",
            f"{generator['cpu_seconds']:.1f} s CPU"
            + (f", {generator['cpu_cores']:.2f} cores" if generator["cpu_cores"] else "")
            + (f", {cost:.1f} ms per 1,000 tokens" if cost else ""),
        ),
    ]
    if lag := generator.get("loop_lag"):
        texts = [f"{name} {format_duration(lag[name])}" for name in ("p50", "p99", "max")]
        client.append(("Own delay in seeing answers", ", ".join(texts)))
    if workers := generator["workers"]:
        busiest_s = max(worker["cpu_seconds"] for worker in workers)
        text = f"{len(workers)}, the busiest {busiest_s:.1f} s CPU"
        if lags := [worker["loop_lag"]["p95"] for worker in workers if worker.get("loop_lag")]:
            text += f", the latest p95 {format_duration(max(lags))}"
        client.append(("Workers", text))
    return [("Endpoint", endpoint_facts(results)), ("Load", workload), ("Load generator", client)]


def notes() -> list[tuple[str, str]]:
    """Return every metric with its definition, from the docstring that stands beside its code."""
    metrics: list[type[RequestMetric] | type[RunMetric] | type[ClientCpu]] = [
        *(type(metric) for metric in request_metrics()),
        *run_metrics(),
        ClientCpu,
    ]
    return [
        (metric.header, " ".join(inspect.cleandoc(metric.__doc__ or "").replace("``", "").split()))
        for metric in metrics
    ]


def _tile(label: str, value: str, unit: str, note: str, tone: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "unit": unit, "note": note, "tone": tone}


def _number(value: float | None) -> str:
    if value is None:
        return _MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _tokens_note(results: Mapping[str, Any]) -> str:
    summary = results["metrics"]["output_tokens"]
    return "no answer" if summary is None else f"{summary['mean']:.0f} per answer"
