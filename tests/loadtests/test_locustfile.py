"""Plain Locust with our users: ``locust -f loadtests/locustfile.py``."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from loadtests import protocols
from tests.loadtests import script
from tests.loadtests.conftest import ROOT

pytestmark = pytest.mark.locust
COMMAND = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py")]


def locust(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Locust outside the clone, as somebody who installed it would."""
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_headless_locust_speaks_grpc(tmp_path: Path, grpc_url: str) -> None:
    options = ["--headless", "-u", "2", "-r", "2", "-t", "3s", "-s", "5", "--host", grpc_url]
    asked = [
        "--output-tokens",
        "uniform:6..9",
        "--temperature",
        "0.5",
        "--top-k",
        "5",
        "--think-time",
        "50ms",
    ]
    done = locust(*options, *asked, "--protocol", "grpc", "--results", "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    total = re.search(r"Aggregated\s+(\d+)\s+0\(0.00%\)", done.stdout + done.stderr)
    assert total is not None, done.stderr
    found = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert found["requests"]["ok"] > 0
    assert found["metrics"]["output_tokens"]["p50"] == script.TOKENS
    assert found["metrics"]["ttft"]["p50"] >= 0.95e9 * script.FIRST_S
    assert (found["config"]["top_k"], found["config"]["think_time"]) == (5, "50ms")
    assert found["config"]["stop_timeout"] == "5s"
    assert (found["server"]["server"], found["server"]["model_versions"]) == ("scripted", ["1"])
    assert (tmp_path / "results" / "report.html").is_file()


# What Locust does with -t when our listener has come back, after a long preparation.
ALARM = """
import time
from types import SimpleNamespace
import gevent
import loadtests.locustfile as locustfile

def prepare(environment):
    end_s = time.monotonic() + 1
    while time.monotonic() < end_s:
        pass
    return SimpleNamespace(listen=lambda: None)

locustfile.StockRun = prepare
options = SimpleNamespace(user_classes=["ours"], arrivals="closed")
locustfile._listen(SimpleNamespace(parsed_options=options, runner=None))
begun_s = time.monotonic()
gevent.spawn_later(0.6, lambda: None).join()
print(time.monotonic() - begun_s)
"""


def test_a_test_is_not_shorter_by_what_was_prepared_before_it() -> None:
    done = subprocess.run([sys.executable, "-c", ALARM], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.55


def test_headless_locust_speaks_every_other_protocol(tmp_path: Path, http_url: str) -> None:
    kinds = ("generate", "infer", "openai_chat", "openai_chat_unary", "openai_completions",
             "openai_completions_unary")  # fmt: skip
    assert {*kinds, "generate_stream", "grpc"} == set(protocols.names())
    running = {}
    try:
        for kind in kinds:  # all at once: each waits for the server most of the time
            url = f"{http_url}/v1" if kind.startswith("openai") else http_url
            options = ["--headless", "-u", "2", "-r", "2", "-t", "4s", "-s", "5", "--host", url]
            with (tmp_path / f"{kind}.log").open("w") as sink:
                command = [*COMMAND, *options, "--protocol", kind, "--results", kind]
                running[kind] = subprocess.Popen(command, cwd=tmp_path, stdout=sink, stderr=sink)
        for kind, process in running.items():
            assert process.wait(timeout=60) == 0, (tmp_path / f"{kind}.log").read_text(encoding="utf-8")
            found = json.loads((tmp_path / kind / "results.json").read_text(encoding="utf-8"))
            assert found["requests"]["ok"] > 0
            assert found["requests"]["failed"] == 0
            assert found["metrics"]["output_tokens"]["p50"] == script.TOKENS
            streams = kind in ("openai_chat", "openai_completions")
            assert (found["metrics"]["ttft"] is not None) == streams
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def test_failures_reach_locusts_own_statistics(tmp_path: Path, http_url: str) -> None:
    options = ["--headless", "-u", "1", "-t", "3s", "--host", http_url, "--model", "shed"]
    done = locust(*options, cwd=tmp_path)
    assert done.returncode == 1
    assert "load test failed: no request succeeded; failure rate 100.00 % is above 1.00 %" in done.stderr
    assert "refused: HTTP 503: shed on purpose" in done.stdout + done.stderr


def test_plain_locust_keeps_a_schedule_without_being_told_how_many_users(
    tmp_path: Path, http_url: str
) -> None:
    options = ["--headless", "-t", "3s", "-s", "5", "--host", http_url, "--results", "results"]
    arrivals = ["--arrivals", "gamma", "--burstiness", "0.5", "--rate", "10..30", "--max-lateness-p99", "2s"]
    done = locust(*options, *arrivals, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert found["config"]["users"] == 256
    assert found["config"]["rate"] == "10..30"
    assert found["requests"]["ok"] > 5
    assert found["requests"]["unsent"] == 0
    assert found["metrics"]["lateness"]["count"] == found["requests"]["ok"]


def test_a_limit_that_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    done = locust("--headless", "-t", "1s", "--protocol", "generate", "--max-ttft-p95", "1s", cwd=tmp_path)
    assert done.returncode != 0
    assert "drop the limits on ttft, itl and tpot" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_web_ui_runs_our_users(tmp_path: Path, http_url: str) -> None:
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    options = ["--web-host", "127.0.0.1", "--web-port", str(port), "--host", http_url]
    with (tmp_path / "log").open("w") as sink:
        server = subprocess.Popen([*COMMAND, *options], cwd=tmp_path, stdout=sink, stderr=sink)
    try:
        _wait_until_open(port)
        own = {"top_p": "0.5", "output_tokens": str(script.TOKENS), "force_output_tokens": "true"}
        load = {"user_count": 2, "spawn_rate": 2, "host": http_url}
        form = urllib.parse.urlencode({**load, **own}).encode()
        with urllib.request.urlopen(f"{address}/swarm", data=form, timeout=10) as answer:
            assert json.load(answer)["success"] is True
        deadline = time.monotonic() + 15
        row: dict[str, object] = {}
        while not row.get("num_requests"):
            assert time.monotonic() < deadline, row
            time.sleep(0.2)
            with urllib.request.urlopen(f"{address}/stats/requests", timeout=10) as answer:
                row = json.load(answer)["stats"][0]
        assert (row["method"], row["name"], row["num_failures"]) == ("SSE", "llm", 0)
        with urllib.request.urlopen(f"{http_url}/asked", timeout=10) as answer:
            body = json.load(answer)[-1]  # what the form said reached the model
        assert (body["top_p"], body["min_tokens"], body["ignore_eos"]) == (0.5, script.TOKENS, True)
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the web UI did not open"
        time.sleep(0.1)
