"""Every ``trimaran-locust`` line of the pages runs: headless, distributed, and with the web UI."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from serving.ports import choose_ports
from tests.loadtests.conftest import ROOT
from tests.loadtests.sample_run import check_schema
from tests.loadtests.test_docs import DISTRIBUTED, LOADTESTING, commands, write_files

# What differs from the page: addresses, and how long and how much, for two cores that others use too.
SHORTER = {"40s": "5s", "2m": "5s", "800ms": "20s", "64": "6", "300": "60"}
PATIENCE_S = 90


def adapted(line: list[str], url: str, folder: str, ports: list[int]) -> list[str]:
    """Return the arguments for this machine.

    Args:
        line: the command, as the page has it.
        url: of the endpoint.
        folder: for its results.
        ports: of a master, and of a web UI.
    """
    words = [SHORTER.get(word, word) for word in line[1:]]
    for option, value in (("--host", url), ("--master-host", "127.0.0.1"), ("--results", folder)):
        if option in words:
            words[words.index(option) + 1] = value
    if "--worker" in words:
        return [*words, "--master-port", str(ports[0])]
    if "--master" in words or "--processes" in words:
        words += ["--master-bind-host", "127.0.0.1", "--master-bind-port", str(ports[0])]
    if "--processes" in words:
        words += ["--master-port", str(ports[0])]  # of the workers that it starts
    return [*words, "--web-host", "127.0.0.1", "--web-port", str(ports[1]), "--max-lateness-p99", "20s"]


def begin(folder: Path, name: str, words: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("wb") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "loadtests.locust_command", *words], cwd=folder, stdout=sink, stderr=sink,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip


@pytest.mark.locust
def test_every_example_of_locust_runs(http_url: str, tmp_path: Path) -> None:
    write_files(tmp_path)
    lines = commands(LOADTESTING, "trimaran-locust") + commands(DISTRIBUTED, "trimaran-locust")
    assert len(lines) == 6
    free = choose_ports("127.0.0.1", (0,) * 2 * len(lines))
    master = next(number for number, line in enumerate(lines) if "--master" in line)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for number, line in enumerate(lines):
            place = master if "--worker" in line else number
            words = adapted(line, http_url, f"out/{number}", free[2 * place : 2 * place + 2])
            for copy in range(2 if "--worker" in line else 1):  # the page's master waits for two
                running[f"{number}-{copy}"] = begin(tmp_path, f"{number}-{copy}", words)
        for number, line in enumerate(lines):
            for name in (name for name in running if name.startswith(f"{number}-")):
                log = tmp_path / f"{name}.log"
                if "--headless" not in line and "--worker" not in line:
                    see_the_web_ui(free[2 * number + 1], log)
                    running[name].send_signal(signal.SIGTERM)
                assert running[name].wait(timeout=PATIENCE_S) == 0, (line, log.read_text(encoding="utf-8"))
            if "--results" in line:
                results = json.loads((tmp_path / f"out/{number}/results.json").read_text(encoding="utf-8"))
                check_schema(results)
                assert results["requests"]["ok"] > 0, line
                workers = 4 if "--processes" in line else 2 if "--master" in line else 0
                assert len(results["load_generator"]["workers"]) == workers
    finally:
        for process in running.values():
            # With --processes it has workers of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def see_the_web_ui(port: int, log: Path) -> None:
    """Wait for the page that the command opens."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert b"locust" in answer.read().lower()
            return
        except OSError:
            assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
            time.sleep(0.1)
