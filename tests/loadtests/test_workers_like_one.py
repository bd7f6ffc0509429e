"""An open loop from two workers and from one process: the same requests, and metrics as of one process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from loadtests.config_json import config_from_json
from loadtests.credentials import Credentials
from loadtests.measurement import Measurement, measure
from loadtests.metrics.distribution import Distribution
from loadtests.record import Record, read_records
from loadtests.run import run_load_test
from loadtests.workloads.source import load_prompts
from loadtests.workloads.workload import make_workload
from tests.loadtests.script import TOKENS
from tests.loadtests.test_workers import Run, cluster, collect
from tests.tiny_models import build_tiny_tokenizer

pytestmark = pytest.mark.locust
GAP_NS = 50_000_000


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, http_url: str) -> tuple[Run, list[Record]]:
    """A run of a master and two workers, and the requests of one process with the same settings."""
    folder = tmp_path_factory.mktemp("workers-and-one")
    build_tiny_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    load = ("-u", "20", "-r", "20", "-t", "4s", "-s", "5", "--host", http_url)
    arrivals = ("--arrivals", "constant", "--rate", "20", "--max-lateness-p99", "1us")
    made = ("--workload", "synthetic", "--tokenizer", "tokenizer.json", "--input-tokens", "uniform:9..90")
    asked = (*made, "--output-tokens", "uniform:6..30", "--temperature", "0.5", "--seed", "3")
    with cluster(folder, 2, *load, *arrivals, *asked, "--results", "out") as processes:
        run = collect(folder, processes)
    config = replace(config_from_json(run.results["config"]), output=folder / "alone", duration="2s")
    return run, list(read_records(run_load_test(config).requests_jsonl))


def test_workers_share_one_schedule(both: tuple[Run, list[Record]]) -> None:
    run, _ = both
    shares = run.results["load_generator"]["workers"]
    assert [share["index"] for share in shares] == [0, 1]
    assert abs(shares[0]["requests"] - shares[1]["requests"]) <= 2
    # On the master's clock the arrivals are those of one process: every 50 ms, each of them once, but for one
    # shift of each worker. How far the clocks are off is known to the fastest message, and a busy machine has
    # none that is fast: how close it comes when nobody disturbs it, docs/distributed-load.md tells.
    assert len(run.records) >= 10
    for rank in range(2):
        shifts = {
            record.asked_ns - record.sequence * GAP_NS
            for record in run.records
            if record.sequence % 2 == rank
        }
        (shift,) = shifts
        assert abs(shift) < 500_000_000
    # What each place asks is what one process would have asked there.
    config = config_from_json(run.results["config"])
    workload = make_workload(
        config, load_prompts(config), model="llm", request_timeout_s=1.0, credentials=Credentials()
    )
    assert len({record.sequence for record in run.records}) == len(run.records)
    assert len({record.max_tokens for record in run.records}) > 5
    for record in run.records:
        request = workload.request(record.sequence)
        assert (record.prompt, record.max_tokens) == (request.prompt.index, request.max_tokens)
        assert record.input_tokens == request.prompt.tokens
    # No timer is as good as a microsecond.
    assert run.codes[0] == 4, run.log
    assert "load test invalid: the run is invalid: lateness p99" in run.log


def test_the_requests_are_those_of_one_process(both: tuple[Run, list[Record]]) -> None:
    run, alone = both
    merged = {record.sequence: record for record in run.records}
    single = {record.sequence: record for record in alone}
    # Plain Locust counts its time from before the users start: one of the two gets further on the schedule.
    common = sorted(merged.keys() & single.keys())
    assert common == list(range(min(len(merged), len(single))))
    assert len(common) >= 10
    for place in common:
        one, other = merged[place], single[place]
        for name in (
            "prompt",
            "input_tokens",
            "max_tokens",
            "prompt_tokens",
            "turn",
            "outcome",
            "output_tokens",
        ):
            assert getattr(one, name) == getattr(other, name), (place, name)
        assert other.asked_ns == place * GAP_NS
    # Whatever does not hang on the clock is the same to the last sample, however many processes measured it.
    for metric in ("output_tokens", "prompt_tokens"):
        found, wanted = (of(map(kept.__getitem__, common)).summaries[metric] for kept in (merged, single))
        assert found == wanted
    assert of(merged[place] for place in common).totals["failure_rate"] == 0
    assert {record.output_tokens for record in alone} == {TOKENS}


def test_merged_metrics_are_those_of_one_process_that_has_all_requests(
    both: tuple[Run, list[Record]],
) -> None:
    run, _ = both
    window = run.results["window"]
    again = measure(run.records, warmup_ns=0, end_ns=window["end_ns"], user_counts=[])
    for tag, summary in run.results["metrics"].items():
        # The master merged what its workers sent in pieces; this is one pass over the raw requests.
        wanted = again.summaries[tag]
        assert summary is not None
        assert wanted is not None
        assert wanted.as_dict().items() <= summary.items(), tag
        assert Distribution.stored(summary).count == wanted.count
    assert again.totals == {tag: total["value"] for tag, total in run.results["totals"].items()}


def of(records: Iterable[Record]) -> Measurement:
    """Return the numbers of some requests, whenever they ended."""
    kept = list(records)
    return measure(kept, warmup_ns=0, end_ns=max(record.end_ns for record in kept) + 1, user_counts=[])
