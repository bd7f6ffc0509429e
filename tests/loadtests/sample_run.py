"""A run with everything that a report can show, made of records and metrics written here."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema

import loadtests
from loadtests.config import LoadTestConfig
from loadtests.metrics.distribution import Distribution
from loadtests.metrics.metric import Window
from loadtests.process import LoadRun
from loadtests.record import Record
from loadtests.report.page import render_report
from loadtests.run import write_everything
from loadtests.server_metrics.batch_sizes import BATCHES
from loadtests.server_metrics.snapshot import Key, Snapshot, parse_metrics
from loadtests.server_metrics.summary import server_metrics

__all__ = ["MS", "SCHEMA", "check_schema", "metrics_page", "sample_page", "sample_results", "write_run"]

SCHEMA = json.loads((Path(loadtests.__path__[0]) / "results.schema.json").read_text(encoding="utf-8"))

MS = 1_000_000
SECONDS = 40
MODEL_CONFIG = {
    "name": "llm", "backend": "python", "max_batch_size": 8,
    "dynamic_batching": {
        "max_queue_delay_microseconds": 500, "default_queue_policy": {"max_queue_size": 64},
    },
    "instance_group": [{"name": "engine", "kind": "KIND_CPU", "count": 1}],
    "input": [{"name": "text_input", "data_type": "TYPE_STRING", "dims": ["1"], "optional": True}],
}  # fmt: skip


ENGINE = {
    "engine": "openvino", "weights": "int8", "kv_dtype": "u8", "max_context": "2048",
    "base": "HuggingFaceTB/SmolLM2-135M-Instruct", "checkpoint": "merged, lora",
    "manifest_sha256": "3f9c2a4be1d0" + 52 * "7", "trimaran": "1.0.0",
}  # fmt: skip


def check_schema(results: dict[str, Any]) -> None:
    """Hold the content of results.json against our schema."""
    jsonschema.Draft202012Validator(SCHEMA).validate(results)


def write_run(folder: Path, seed: int, *, slower: float = 1.0, failures: int = 0, **settings: Any) -> Path:
    """Write a load of 200 requests whose latencies scatter, some of them widely."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(200):
        start = number * SECONDS * 1000 * MS // 200
        stamps = [start + round(slower * 120 * MS * chance.lognormvariate(0, 0.8))]
        for _ in range(11):
            stamps.append(stamps[-1] + round(slower * 24 * MS * chance.lognormvariate(0, 0.3)))
        failed = number % 25 == 24 and number // 25 < failures
        lines.append(
            Record(
                start_ns=start, end_ns=stamps[-1], user=number % 8, prompt=number, streamed=True,
                outcome="failed" if failed else "ok", failure="5xx" if failed else None,
                detail=f"HTTP 500: engine fault {number}" if failed else None,
                chunk_ns=stamps, chunk_tokens=[1] * 12, finish_reason="length", prompt_tokens=40,
            ).to_line()
        )  # fmt: skip
    (folder / "requests.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = LoadTestConfig(duration=f"{SECONDS}s", warmup="5s", **settings)
    run = LoadRun(
        server={
            "server": "triton", "server_version": "2.51.0", "model_versions": ["3"],
            "model_config": MODEL_CONFIG,
        },
        end_ns=SECONDS * 1000 * MS, ended_by="duration", cpu_seconds=1.5,
        user_counts=[(0, 4), (2000 * MS, 8)],
    )  # fmt: skip
    write_everything(folder, config, run, datetime(2026, 1, 2, 3, 4, seed, tzinfo=UTC))
    return folder


def metrics_page(second: float) -> str:
    """Return what a server that answers 5 requests per second publishes after so many seconds."""
    requests, steps = 100 + round(5 * second), 900 + round(30 * second)
    label = 'model="llm",version="3"'
    queue, first, batch = (
        "trimaran_queue_seconds", "trimaran_time_to_first_token_seconds", "trimaran_engine_batch_size",
    )  # fmt: skip
    samples = {
        "counter": {
            "nv_inference_request_success": requests,
            "nv_inference_count": requests,
            "nv_inference_exec_count": round(requests / 1.5),
            "nv_inference_queue_duration_us": 21_000 * requests,
            "trimaran_completion_tokens_total": 12 * requests,
            "trimaran_decode_seconds_total": 0.6 * second,
            "trimaran_prefill_seconds_total": 0.2 * second,
        },
        "gauge": {
            "nv_inference_pending_request_count": round(second) % 4,
            "trimaran_running_requests": 3 + round(second) % 5,
            "trimaran_waiting_requests": round(second) % 3,
            "trimaran_slots": 8,
            "trimaran_kv_tokens": 1000,
            "trimaran_kv_tokens_used": 300 + 10 * (round(second) % 9),
        },
        "histogram": {
            f"{queue}_sum": 0.03 * requests,
            f"{queue}_count": requests,
            f'{queue}_bucket{{le="+Inf"}}': requests,
            f"{first}_sum": 0.1 * requests,
            f"{first}_count": requests,
            f'{first}_bucket{{le="+Inf"}}': requests,
            f"{batch}_sum": 3.5 * steps,
            f"{batch}_count": steps,
            f'{batch}_bucket{{le="1"}}': round(0.1 * steps),
            f'{batch}_bucket{{le="2"}}': round(0.3 * steps),
            f'{batch}_bucket{{le="4"}}': round(0.6 * steps),
            f'{batch}_bucket{{le="8"}}': steps,
            f'{batch}_bucket{{le="+Inf"}}': steps,
        },
    }
    facts = "".join(f',{name}="{value}"' for name, value in ENGINE.items())
    lines = ["# TYPE trimaran_engine_info gauge", f"trimaran_engine_info{{{label}{facts}}} 1"]
    lines += ["# TYPE nv_cpu_utilization gauge", f"nv_cpu_utilization {0.5 + 0.01 * (second % 20)}"]
    lines += ["# TYPE nv_cpu_memory_used_bytes gauge", f"nv_cpu_memory_used_bytes {5e9 + 1e7 * second}"]
    for kind, series in samples.items():
        family = ""
        for name, value in series.items():
            base, _, inner = name.partition("{")
            stem = base.removesuffix("_sum").removesuffix("_count").removesuffix("_bucket")
            stem = stem if kind == "histogram" else base
            if stem != family:
                family = stem
                lines.append(f"# TYPE {family} {kind}")
            lines.append(f"{base}{{{label}{',' + inner[:-1] if inner else ''}}} {value}")
    return "\n".join(lines) + "\n"


def handed_over(second: float) -> dict[Key, float]:
    """Return what Triton's statistics say of its batches after so many seconds."""
    shares = {1: 6, 2: 3, 3: 1, 7: 0.5}
    return {
        Key(0, BATCHES, (("batch_size", str(size)), ("model", "llm"), ("version", "3")), True): share * second
        for size, share in shares.items()
    }


def sample_results(folder: Path) -> dict[str, Any]:
    """Return the results of a run beside what the server says of it."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    snapshots = [
        Snapshot(second * 1000 * MS, parse_metrics(metrics_page(second), "llm") | handed_over(second))
        for second in range(-1, SECONDS + 3)
    ]
    window = results["window"]
    results["server_metrics"] = server_metrics(
        snapshots, origin_ns=0, window=Window(window["start_ns"], window["end_ns"]),
        urls=["http://127.0.0.1:8002/metrics"], interval_s=1.0, answered=215,
    )  # fmt: skip
    return results


def sample_page(folder: Path) -> Path:
    """Write the page of such a run, beside a baseline, and return its path."""
    before = write_run(folder / "before", seed=1)
    run = write_run(
        folder / "run", seed=2, slower=1.15, failures=4, baseline=before,
        max_ttft_p95="300ms", max_itl_p99="80ms", max_e2e_p95="10s", goodput_ttft="200ms", min_goodput=0.5,
    )  # fmt: skip
    results = sample_results(run)
    distributions = {
        tag: Distribution() if summary is None else Distribution.stored(summary)
        for tag, summary in results["metrics"].items()
    }
    baseline = json.loads((before / "results.json").read_text(encoding="utf-8"))
    page = folder / "report.html"
    page.write_text(render_report(results, distributions, baseline), encoding="utf-8")
    return page
