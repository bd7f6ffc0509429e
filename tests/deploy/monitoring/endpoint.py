"""A served tiny model under a trickle of requests, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.monitoring.promql import DEPLOY
from tests.serving.endpoint import post

__all__ = ["Prometheus", "Sample", "fetch", "running_prometheus", "samples", "trickle"]

Sample = tuple[str, dict[str, str], float]


def fetch(url: str) -> str:
    """GET a text."""
    with urllib.request.urlopen(url, timeout=10) as response:
        body: str = response.read().decode()
    return body


def samples(metrics_url: str) -> list[Sample]:
    """Return ``(name, labels, value)`` of everything a server publishes."""
    found = []
    for line in fetch(metrics_url).splitlines():
        if line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
            found.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), float(value)))
    return found


@contextmanager
def trickle(http_url: str) -> Iterator[None]:
    """Ask the model for a few tokens five times a second."""
    stop = threading.Event()

    def ask() -> None:
        body = {"text_input": "The sea", "max_tokens": 8, "ignore_eos": True}
        while not stop.wait(0.2):
            status, answer = post(f"{http_url}/v2/models/llm/generate", body)
            assert status == 200, answer

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield
    finally:
        stop.set()
        asker.join()


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Return ``data`` of an answer of the API."""
        return json.loads(fetch(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def numbers(self, expression: str) -> list[float]:
        """Return the values of an instant query that are numbers."""
        values = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in values if not math.isnan(value)]

    def wait_for(self, expression: str, seconds: float = 30) -> list[float]:
        """Return the numbers of a query as soon as there are any, or none."""
        deadline = time.monotonic() + seconds
        while not (numbers := self.numbers(expression)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return numbers


@contextmanager
def running_prometheus(binary: str, target: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with our configuration; only the target and the intervals are changed."""
    shutil.copytree(DEPLOY / "prometheus" / "rules", folder / "rules")
    for path in (folder / "rules").glob("*.yml"):
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group["interval"] = "1s"
        path.write_text(yaml.safe_dump(rules), encoding="utf-8")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{chosen.getsockname()[1]}"
    for job, place in zip(config["scrape_configs"], (target, address), strict=True):
        job["static_configs"] = [{"targets": [place]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                fetch(f"http://{address}/-/ready")
                break
            except OSError:
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.1)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(20)
