"""Starts and stops the process that reads the server's metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import loadtests
from loadtests.config import LoadTestConfig
from loadtests.credentials import read_credentials
from loadtests.server_metrics.endpoint import find_metrics
from loadtests.server_metrics.snapshot import Snapshot, read_snapshots

__all__ = ["Scraper"]

logger = logging.getLogger(__name__)
_GRACE_S = 15.0


class Scraper:
    """Reads the metrics of a run, in a process of its own: a context manager around the load.

    Args:
        config: names the endpoint, the metrics, and the interval.

    Raises:
        LoadTestError: metrics that the settings name cannot be read.
    """

    def __init__(self, config: LoadTestConfig) -> None:
        self.urls, self.notes = find_metrics(config.url, config.model, config.metrics_url, config.ca_file)
        self.interval_s = config.metrics_interval_ns / 1e9
        self._order = {
            "urls": self.urls,
            "targets": config.url,
            "headers": read_credentials(config).headers,
            "model": config.model,
            "interval_s": self.interval_s,
            "ca_file": None if config.ca_file is None else str(config.ca_file.absolute()),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Scraper:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._directory is not None:
            self._directory.cleanup()

    def start(self) -> None:
        """Begin to read; nothing happens where there is nothing to read."""
        if not self.urls:
            return
        self._directory = tempfile.TemporaryDirectory(prefix="trimaran-metrics-")
        root = str(Path(loadtests.__path__[0]).parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with self._file.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadtests.server_metrics"],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C ends the load first
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(self._order).encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Read a last time, when the server has published everything, and end."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            _, said = process.communicate(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        if process.returncode:
            self.notes.append(f"reading the server's metrics ended early (code {process.returncode})")
            logger.warning("%s: %s", self.notes[-1], said[-2000:].decode("utf-8", "replace"))

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield what was read, in order."""
        if self._directory is not None:
            yield from read_snapshots(self._file)

    @property
    def _file(self) -> Path:
        assert self._directory is not None
        return Path(self._directory.name) / "snapshots.jsonl"
