"""Locust's master and workers, real processes on this machine, and one result."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadtests.loop_lag import INTERVAL_NS
from loadtests.record import Record, read_records
from tests.loadtests.conftest import ROOT
from tests.loadtests.sample_run import check_schema
from tests.loadtests.script import FIRST_S, TOKENS

pytestmark = pytest.mark.locust
COMMAND = [sys.executable, "-m", "loadtests.locust_command"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(cwd: Path, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        return subprocess.Popen([*COMMAND, *arguments], cwd=cwd, env=ENVIRONMENT, stdout=sink, stderr=sink)


@contextmanager
def cluster(cwd: Path, workers: int, *arguments: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a headless master that waits for its workers, and the workers. Yield them, master first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    master = ("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    expected = ("--headless", "--expect-workers", str(workers), "--expect-workers-max-wait", "90")
    worker = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
    found = [start(cwd, cwd / "master.log", *master, *expected, *arguments)]
    try:
        found += [start(cwd, cwd / f"worker-{number}.log", *worker) for number in range(workers)]
        yield found
    finally:
        for process in found:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Run:
    """What a run left, and how its processes ended."""

    codes: list[int]
    log: str
    results: dict[str, Any]
    records: list[Record]
    folder: Path


def collect(folder: Path, processes: list[subprocess.Popen[bytes]]) -> Run:
    codes = [process.wait(timeout=120) for process in processes]
    log = (folder / "master.log").read_text(encoding="utf-8")
    assert (folder / "out" / "results.json").is_file(), log
    results = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))
    check_schema(results)
    return Run(codes, log, results, list(read_records(folder / "out" / "requests.jsonl")), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, http_url: str) -> Run:
    """Two workers, five users, a limit that cannot hold."""
    folder = tmp_path_factory.mktemp("workers")
    load = ("-u", "5", "-r", "5", "-t", "3s", "-s", "5", "--host", http_url, "--json-file", "locust")
    with cluster(folder, 2, *load, "--results", "out", "--max-ttft-p95", "1ms") as processes:
        return collect(folder, processes)


def test_every_request_of_every_worker_is_in_the_result(run: Run) -> None:
    shares = run.results["load_generator"]["workers"]
    assert [share["index"] for share in shares] == [0, 1]
    assert all(share["finished"] for share in shares)
    assert all(share["requests"] > 0 for share in shares)
    assert sum(share["requests"] for share in shares) == len(run.records) == run.results["requests"]["ok"]
    # Locust counts for itself; it got the last requests only because we waited for the workers.
    (row,) = json.loads((run.folder / "locust.json").read_text(encoding="utf-8"))
    assert (row["num_requests"], row["num_failures"]) == (len(run.records), 0)
    assert run.results["notes"] == []


def test_the_records_are_those_of_one_run(run: Run) -> None:
    assert {record.user for record in run.records} == {0, 1, 2, 3, 4}
    assert [record.end_ns for record in run.records] == sorted(record.end_ns for record in run.records)
    per_user = Counter(record.user for record in run.records)
    assert min(per_user.values()) >= 0.5 * max(per_user.values())  # a number is one user, not two
    for record in run.records:
        assert record.output_tokens == TOKENS
        assert record.chunk_ns[0] - record.start_ns >= 0.95e9 * FIRST_S
        assert 0 <= record.start_ns <= record.end_ns
    # Both loads began together on the master's clock, after its own start.
    begins = {user: min(r.start_ns for r in run.records if r.user == user) for user in per_user}
    assert max(begins.values()) - min(begins.values()) < 1e9
    assert max(bucket["users"] for bucket in run.results["series"]) == 5


def test_workers_do_not_send_the_same_prompts(run: Run) -> None:
    # 39 prompts are packaged; two workers that both began at the first would repeat each one at once.
    first = sorted(run.records, key=lambda record: record.start_ns)[:10]
    assert len({record.prompt for record in first}) == 10


def test_the_generator_s_cost_is_that_of_all_processes(run: Run) -> None:
    generator = run.results["load_generator"]
    assert all(share["cpu_seconds"] > 0 for share in generator["workers"])
    assert generator["cpu_seconds"] >= sum(share["cpu_seconds"] for share in generator["workers"])
    lags = [share["loop_lag"] for share in generator["workers"]]
    assert all(lag["count"] > 1e9 / INTERVAL_NS for lag in lags)
    assert generator["loop_lag"]["count"] == sum(lag["count"] for lag in lags)
    assert generator["loop_lag"]["max"] == max(lag["max"] for lag in lags)


def test_a_broken_limit_is_exit_code_1_of_the_master_alone(run: Run) -> None:
    assert run.codes == [1, 0, 0], run.log
    assert not run.results["verdict"]["passed"]
    (reason,) = run.results["verdict"]["reasons"]
    assert "(--max-ttft-p95)" in reason
    assert f"load test failed: {reason}" in run.log
    report = (run.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert reason in report
    assert "2, the busiest" in report


def wait_for_users(folder: Path, master: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    # Workers of a busy machine say so late, and Locust waits for no more than a second.
    said = ("All users spawned", "Spawning is complete")
    while not any(text in (folder / "master.log").read_text(encoding="utf-8") for text in said):
        assert master.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory, http_url: str) -> tuple[Run, Run]:
    """Of three workers one is killed and one is told to leave; elsewhere the only worker is killed."""
    some, all_ = tmp_path_factory.mktemp("some"), tmp_path_factory.mktemp("all")
    load = ("-u", "3", "-r", "3", "-s", "5", "--host", http_url, "--results", "out")
    with cluster(some, 3, *load, "-t", "5s") as three, cluster(all_, 1, *load, "-t", "90s") as one:
        wait_for_users(some, three[0])
        wait_for_users(all_, one[0])
        time.sleep(1.2)  # two batches
        three[1].kill()
        one[1].kill()
        three[2].send_signal(signal.SIGTERM)
        return collect(some, three), collect(all_, one)


def test_workers_that_die_or_leave_are_noticed_and_their_requests_count(deaths: tuple[Run, Run]) -> None:
    run, _ = deaths
    # Every limit holds, yet this was not the load that was asked for.
    assert run.codes == [3, -signal.SIGKILL, 0, 0], run.log
    verdict = run.results["verdict"]
    assert all(check["passed"] for check in verdict["checks"])
    assert verdict["outcome"] == "invalid"
    assert len(verdict["reasons"]) == 2
    assert all("the run is incomplete: worker" in reason for reason in verdict["reasons"])
    assert "<error message=" in (run.folder / "out" / "junit.xml").read_text(encoding="utf-8")
    notes = sorted(run.results["notes"])
    assert len(notes) == 2
    assert all(note in run.log for note in notes)
    (lost,) = [note for note in notes if "was lost" in note]
    (gone,) = [note for note in notes if "left after" in note]
    shares = {share["name"]: share for share in run.results["load_generator"]["workers"]}
    assert sorted(share["finished"] for share in shares.values()) == [False, True, True]
    for share in shares.values():
        assert share["requests"] > 0
        assert (share["name"] in lost) == (not share["finished"])
    assert any(name in gone for name in shares)
    assert sum(share["requests"] for share in shares.values()) == len(run.records)
    assert lost in (run.folder / "out" / "report.html").read_text(encoding="utf-8")


def test_a_master_without_workers_ends_with_what_it_has(deaths: tuple[Run, Run]) -> None:
    _, run = deaths
    assert run.codes == [3, -signal.SIGKILL], run.log
    assert 0 < run.results["window"]["seconds"] < 30  # of 90
    assert len(run.records) == run.results["requests"]["ok"] > 0
    (note,) = run.results["notes"]
    assert f"was lost: its {len(run.records)} requests until then count" in note
