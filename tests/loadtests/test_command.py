"""``trimaran loadtest`` and ``locust -f loadtests/locustfile.py``, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.loadtests.conftest import ROOT
from tests.loadtests.metrics_server import published
from tests.loadtests.sample_run import check_schema
from tests.loadtests.script import TOKENS

pytestmark = pytest.mark.locust

BIN = Path(sys.executable).parent
LOCUSTFILE = str(ROOT / "loadtests" / "locustfile.py")


def trimaran(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``trimaran loadtest`` in another directory."""
    command = [str(BIN / "trimaran"), "loadtest", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_exit_code_0_when_every_limit_holds(http_url: str, tmp_path: Path) -> None:
    done = trimaran(
        tmp_path, "--url", http_url, "--users", "2", "--max-requests", "6", "--max-ttft-p95", "5s"
    )
    assert done.returncode == 0, done.stderr
    assert "verdict: passed" in done.stdout
    (report,) = tmp_path.glob("loadtest-results/*/report.html")
    assert f"loadtest-results/{report.parent.name}/report.html" in done.stdout


def test_exit_code_1_when_a_limit_is_broken(http_url: str, tmp_path: Path) -> None:
    config = tmp_path / "load.yaml"
    config.write_text(f"url: {http_url}\nmodel: flaky\nusers: 2\nmax_requests: 12\noutput: out\n")
    done = trimaran(tmp_path, "--config", str(config), "--max-failure-rate", "0.1", "--max-ttft-p50", "1ms")
    assert done.returncode == 1, done.stderr
    verdict = json.loads((tmp_path / "out" / "results.json").read_text())["verdict"]
    assert not verdict["passed"]
    assert len(verdict["reasons"]) == 2
    for reason in verdict["reasons"]:
        assert reason in done.stdout
    assert "Exceeds maximum queue size" in (tmp_path / "out" / "report.html").read_text()


def test_exit_code_4_when_the_load_was_not_the_one_asked_for(http_url: str, tmp_path: Path) -> None:
    config = tmp_path / "load.yaml"
    # No timer is as good as a microsecond.
    config.write_text(f"url: {http_url}\narrivals: constant\nrate: 8\nusers: 4\nmax_lateness_p99: 1us\n")
    done = trimaran(tmp_path, "--config", str(config), "--duration", "1s", "--output", "out")
    assert done.returncode == 4, done.stderr
    assert "verdict: invalid" in done.stdout
    assert "(--max-lateness-p99)" in done.stdout
    assert json.loads((tmp_path / "out" / "results.json").read_text())["verdict"]["outcome"] == "invalid"


def test_exit_code_2_when_nothing_answers(tmp_path: Path) -> None:
    done = trimaran(tmp_path, "--url", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "nothing answers there" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [] or not any(tmp_path.rglob("report.html"))


def test_the_load_ends_when_the_command_is_killed(http_url: str, tmp_path: Path) -> None:
    command = [str(BIN / "trimaran"), "loadtest", "--url", http_url, "--duration", "60s", "--output", "out"]
    parent = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def written() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob(".out*/requests.jsonl"))

    try:
        deadline = time.monotonic() + 30
        while not written() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert written()
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 1
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while _alive(children[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(children[0])


def test_an_interrupt_ends_the_load_and_writes_what_was_measured(http_url: str, tmp_path: Path) -> None:
    command = [str(BIN / "trimaran"), "loadtest", "--url", http_url, "--duration", "60s", "--output", "out"]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size for path in tmp_path.glob(".out*/requests.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130, err
    assert "Ctrl-C again" in err
    assert "verdict: passed" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["window"]["ended_by"] == "interrupt"
    assert results["window"]["seconds"] < 30
    assert results["requests"]["ok"] > 0
    assert (tmp_path / "out" / "report.html").is_file()


def test_plain_locust_runs_the_same_users(http_url: str, tmp_path: Path) -> None:
    options = ["--headless", "-u", "2", "-r", "2", "-t", "3s", "-s", "5", "--host", http_url]
    with published() as metrics_url:
        done = subprocess.run(
            [str(BIN / "locust"), "-f", LOCUSTFILE, *options, "--results", "out/run-1",
             "--metrics-url", metrics_url],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SSE" in done.stdout + done.stderr  # Locust's own table names the protocol
    results = json.loads((tmp_path / "out/run-1/results.json").read_text())
    check_schema(results)
    assert results["requests"]["ok"] > 0
    assert results["requests"]["failed"] == 0
    assert results["metrics"]["output_tokens"]["min"] == TOKENS
    assert 0 < results["window"]["seconds"] < 6  # Locust counts its 3 s from before the users start
    assert (tmp_path / "out/run-1/report.html").is_file()
    server = results["server_metrics"]
    assert server["scrapes"] >= 4
    # One request more at each look, a second apart; the load is on the same clock.
    assert server["window"]["requests"] == pytest.approx(results["window"]["seconds"], abs=0.7)
    assert sum(moment["seconds"] for moment in server["series"][1:-2]) >= 0.9


def test_plain_locust_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    options = ["--headless", "-t", "1s", "--prompts", "missing.jsonl"]
    done = subprocess.run(
        [str(BIN / "locust"), "-f", LOCUSTFILE, *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "missing.jsonl: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def _alive(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
