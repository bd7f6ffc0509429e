"""What lies beside the report: the schema of results.json, requests.csv, plots."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

import loadtests.run
from loadtests.config import LoadTestConfig
from loadtests.errors import ConfigError
from loadtests.metrics.distribution import Distribution
from loadtests.metrics.metric import Window
from loadtests.record import Record, read_records
from loadtests.report.plots import PLOTS, write_plots
from loadtests.requests_csv import COLUMNS, requests_csv
from tests.loadtests.sample_run import MS, SCHEMA, check_schema, sample_results, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    before = write_run(folder / "before", seed=1)
    return write_run(
        folder / "run", seed=2, failures=3, baseline=before, goodput_ttft="150ms", max_ttft_p95="1s"
    )


def test_results_are_what_the_schema_says(run: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    results = sample_results(run)
    check_schema(results)
    check_schema(json.loads((run / "results.json").read_text(encoding="utf-8")))  # without a server's metrics
    # A key that is missing or undocumented is noticed.
    for path in ((), ("window",), ("server_metrics", "window"), ("verdict",), ("verdict", "checks", 0)):
        broken = copy.deepcopy(results)
        place = broken
        for key in path:
            place = place[key]
        place["renamed"] = place.pop(next(iter(place)))
        with pytest.raises(jsonschema.ValidationError):
            check_schema(broken)


def test_every_request_is_a_row(run: Path) -> None:
    with (run / "requests.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    records = list(read_records(run / "requests.jsonl"))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(records)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    measured = [row for row in rows if row["place"] == "measured" and row["outcome"] == "ok"]
    assert len(measured) == results["requests"]["ok"]
    slowest = max(float(row["ttft_ms"]) for row in measured)
    assert slowest == pytest.approx(results["metrics"]["ttft"]["max"] / MS, abs=0.001)
    longest = max(float(row["itl_max_ms"]) for row in measured)
    assert longest == pytest.approx(results["metrics"]["itl"]["max"] / MS, abs=0.001)
    met = [row["meets_objectives"] for row in rows if row["place"] == "measured"]
    assert met.count("true") / len(met) == pytest.approx(results["totals"]["goodput"]["value"])
    for row, record in zip(rows, records, strict=True):
        assert float(row["start_s"]) == pytest.approx(record.start_ns / 1e9, abs=1e-6)
        assert row["output_tokens"] == "12"
        assert row["lateness_ms"] == ""  # a closed loop has no schedule: not zero
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert {(row["failure"], row["ttft_ms"], row["e2e_ms"]) for row in failed} == {("5xx", "", "")}


def test_what_a_server_says_is_no_formula(tmp_path: Path) -> None:
    record = Record(
        start_ns=0, user=0, prompt=0, streamed=True, outcome="failed", failure="4xx", detail='=HYPERLINK("x")'
    )
    with requests_csv(tmp_path / "requests.csv", Window(0, MS), {}) as rows:
        rows.add(record)
    with (tmp_path / "requests.csv").open(encoding="utf-8", newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert row["detail"] == '\'=HYPERLINK("x")'
    assert row["meets_objectives"] == ""


def test_plots_are_pictures(run: Path, tmp_path: Path) -> None:
    results = sample_results(run)
    distributions = {
        tag: Distribution() if summary is None else Distribution.stored(summary)
        for tag, summary in results["metrics"].items()
    }
    paths = write_plots(tmp_path / "plots", results, distributions)
    assert [path.name for path in paths] == list(PLOTS)
    for path in paths:
        picture = Image.open(path).convert("L")
        assert picture.width > 1000
        assert picture.getextrema() == (0, 255)
        assert path.stat().st_size > 20_000


def test_plots_without_matplotlib_are_refused_before_the_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loadtests.run, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="plots: they need matplotlib"):
        loadtests.run.run_load_test(LoadTestConfig(plots=True, output=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_stored_distribution_is_the_one_that_was_stored() -> None:
    found = Distribution.of(range(5 * MS, 80 * MS, 1000))
    summary = found.summary()
    assert summary is not None
    again = Distribution.stored(summary.as_dict())
    assert again.summary() == summary
    assert list(again.buckets()) == list(found.buckets())
