"""Two runs of the same load: when a difference is a regression, and when it is chance."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from loadtests.baseline import read_baseline
from loadtests.bootstrap import resampled_mean, resampled_percentiles
from loadtests.config import LoadTestConfig
from loadtests.errors import BaselineError
from loadtests.process import LoadRun
from loadtests.record import Record, read_records
from loadtests.result import LoadTestResult
from loadtests.run import write_everything

MS = 1_000_000
SECONDS = 20


def make_run(
    folder: Path, seed: int, *, slower: float = 1.0, count: int = 400, **settings: Any
) -> LoadTestResult:
    """Write the results of a load whose latencies scatter by a fifth."""
    chance = random.Random(seed)
    folder.mkdir()
    lines = []
    for number in range(count):
        start = number * SECONDS * 1000 * MS // count
        first = start + round(slower * 100 * MS * chance.lognormvariate(0, 0.2))
        stamps = [first]
        for _ in range(5):
            stamps.append(stamps[-1] + round(slower * 20 * MS * chance.lognormvariate(0, 0.2)))
        lines.append(
            Record(
                start_ns=start, end_ns=stamps[-1], user=0, prompt=0, streamed=True, outcome="ok",
                chunk_ns=stamps, chunk_tokens=[1] * 6, finish_reason="length",
            ).to_line()
        )  # fmt: skip
    (folder / "requests.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = LoadTestConfig(duration=f"{SECONDS}s", **settings)
    run = LoadRun(end_ns=SECONDS * 1000 * MS, ended_by="duration", user_counts=[(0, 8)])
    return write_everything(folder, config, run, datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "baseline", seed=1).output


def test_chance_fails_no_build(baseline: Path, tmp_path: Path) -> None:
    for seed in range(2, 5):
        result = make_run(tmp_path / str(seed), seed=seed, baseline=baseline, max_regression=0.0)
        changes = {row.name: row for row in result.verdict.comparisons}
        assert set(changes) == {
            "ttft p50", "ttft p95", "itl p50", "itl p95", "e2e p50", "e2e p95", "output tokens/s",
        }  # fmt: skip
        assert all(row.low < row.high for row in changes.values())
        # At a limit of 0 % each interval that misses zero from the bad side fails: 1 of 40 by definition.
        assert sum(not row.passed for row in changes.values()) <= 2
        # At the usual one none does.
        assert all(replace(row, limit=0.1).passed for row in changes.values())


def test_a_real_change_fails_with_both_numbers(baseline: Path, tmp_path: Path) -> None:
    result = make_run(tmp_path / "out", seed=2, slower=1.3, baseline=baseline)
    assert result.verdict.outcome == "failed"
    for name in ("ttft p50", "itl p50", "e2e p95"):
        (row,) = [row for row in result.verdict.comparisons if row.name == name]
        assert row.low < 0.3 < row.high + 0.05
        assert row.low > 0.1
        assert row.describe() in result.verdict.reasons
    assert make_run(
        tmp_path / "allowed", seed=2, slower=1.3, baseline=baseline, max_regression=0.5
    ).verdict.passed
    assert make_run(tmp_path / "faster", seed=2, slower=0.5, baseline=baseline).verdict.passed


def test_the_comparison_is_in_every_report(baseline: Path, tmp_path: Path) -> None:
    result = make_run(tmp_path / "out", seed=2, slower=1.3, baseline=baseline, max_ttft_p95="10s")
    rows = json.loads(result.results_json.read_text(encoding="utf-8"))["verdict"]["comparisons"]
    assert rows[0]["change"] == pytest.approx(0.3, abs=0.05)
    page = result.report_html.read_text(encoding="utf-8")
    assert f"Against the baseline <code>{baseline}</code>" in page
    suite = ElementTree.fromstring(result.junit_xml.read_text(encoding="utf-8")).find("testsuite")
    assert suite is not None
    broken = {case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None}
    assert "ttft p50 against the baseline" in broken
    assert "ttft p95" not in broken
    assert suite.attrib["failures"] == str(len(broken))
    summary = result.summary_md.read_text(encoding="utf-8")
    assert "| ttft p50 against the baseline | **broken** |" in summary


def test_a_run_too_short_to_compare_does_not_pass(baseline: Path, tmp_path: Path) -> None:
    result = make_run(tmp_path / "out", seed=2, count=12, baseline=baseline)
    assert result.verdict.outcome == "invalid"
    assert "12 answered requests are too few to compare" in result.verdict.reasons[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"users": 9}, "was another load (users: 8, not 9)"),
        ({"spawn_rate": 2.0}, "was another load (spawn_rate: None, not 2.0)"),
        ({"model": "other"}, "was another load (model: llm, not other)"),
        ({"url": "http://one:1,http://two:1"}, "was another load (targets: 1, not 2)"),
        ({"max_tokens": 7, "temperature": 1.0}, "(max_tokens: 64, not 7; temperature: 0.0, not 1.0)"),
        ({"arrivals": "constant", "rate": "3"}, "arrivals: closed, not constant; rate: None, not 3"),
    ],
)
def test_another_load_is_no_baseline(settings: dict[str, Any], message: str, baseline: Path) -> None:
    with pytest.raises(BaselineError) as raised:
        read_baseline(LoadTestConfig(baseline=baseline, **settings))
    assert message in str(raised.value)


def test_a_load_that_changes_over_the_run_must_last_as_long(tmp_path: Path) -> None:
    ramp = {"arrivals": "constant", "rate": "1..20"}
    folder = make_run(tmp_path / "ramp", seed=1, **ramp).output
    with pytest.raises(BaselineError, match="duration: 20s, not 200s"):
        read_baseline(LoadTestConfig(baseline=folder, duration="200s", **ramp))
    assert read_baseline(LoadTestConfig(baseline=folder, duration="20s", **ramp)) is not None
    steady = make_run(tmp_path / "steady", seed=1).output
    assert read_baseline(LoadTestConfig(baseline=steady, duration="200s")) is not None


def test_a_trace_of_other_times_is_another_load(tmp_path: Path) -> None:
    def write(name: str, step_s: float) -> dict[str, Any]:
        path = tmp_path / name
        path.write_text("".join(f'{{"timestamp": {step_s * n}}}\n' for n in range(400)), encoding="utf-8")
        return {"arrivals": "trace", "trace": path}

    settings = write("trace.jsonl", 0.05)
    folder = make_run(tmp_path / "out", seed=1, **settings).output
    records = [
        replace(record, intended_ns=record.start_ns, ready_ns=record.start_ns, sequence=number)
        for number, record in enumerate(read_records(folder / "requests.jsonl"))
    ]
    lines = "".join(record.to_line() + "\n" for record in records)
    (folder / "requests.jsonl").write_text(lines, encoding="utf-8")
    assert read_baseline(LoadTestConfig(baseline=folder, duration="20s", **settings)) is not None
    other = write("other.jsonl", 0.06)
    with pytest.raises(BaselineError, match=r"trace: other arrivals than those of .*other\.jsonl"):
        read_baseline(LoadTestConfig(baseline=folder, duration="20s", **other))


def test_what_is_no_run_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="is no output of a load test"):
        read_baseline(LoadTestConfig(baseline=tmp_path))
    short = make_run(tmp_path / "short", seed=1, count=5).output
    with pytest.raises(BaselineError, match="has 5 answered requests; 30 are needed"):
        read_baseline(LoadTestConfig(baseline=short))
    (short / "requests.jsonl").unlink()
    with pytest.raises(BaselineError, match=r"has no requests\.jsonl"):
        read_baseline(LoadTestConfig(baseline=short))


def test_the_interval_is_as_wide_as_it_should_be() -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(1e9, 1e8, size=900).astype(np.int64)
    owners = np.arange(900)
    # The standard error of a median of normal samples is 1.2533 sigma / sqrt(n).
    (draws,) = resampled_percentiles(values, owners, 900, (50,), seed=1)
    assert np.std(draws) == pytest.approx(1.2533e8 / 30, rel=0.35)
    mean = resampled_mean(values.astype(np.float64), seed=1)
    assert np.std(mean) == pytest.approx(1e8 / 30, rel=0.25)


def test_samples_of_one_request_are_drawn_together() -> None:
    chance = np.random.default_rng(0)
    of_request = chance.normal(1e9, 1e8, size=400)
    values = np.repeat(of_request, 50).astype(np.int64)
    owners = np.repeat(np.arange(400), 50)
    (draws,) = resampled_percentiles(values, owners, 400, (50,), seed=1)
    # As if there were 400 samples, which is the truth, and not 20,000.
    assert np.std(draws) == pytest.approx(1.2533e8 / 20, rel=0.35)


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    chance = np.random.default_rng(0)
    blocks = np.repeat(chance.normal(1e9, 1e8, size=100), 10)
    independent = chance.permutation(blocks)
    assert np.std(resampled_mean(blocks, 1)) > 1.8 * np.std(resampled_mean(independent, 1))
