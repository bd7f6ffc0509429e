"""What plain ``locust -f`` needs around our users: options, a session per test, results at its end."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent

from loadtests import protocols
from loadtests.collector import Collector
from loadtests.config import LoadTestConfig
from loadtests.errors import LoadTestError
from loadtests.load import workload_of
from loadtests.output import check_free, output_directory
from loadtests.process import LoadRun
from loadtests.run import RECORDS_NAME, write_everything
from loadtests.session import Session, attach

__all__ = ["StockRun", "add_options", "config_from_options"]

logger = logging.getLogger(__name__)
_DEFAULTS = LoadTestConfig()
_SAMPLE_INTERVAL_S = 0.5


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser; its web UI shows those that may change between tests."""
    add, default = parser.add_argument, _DEFAULTS
    names = protocols.names()
    add("--protocol", choices=names, default=default.protocol, help="how to ask", include_in_web_ui=False)
    add("--results", default="", help="directory for results.json and report.html", include_in_web_ui=False)
    add("--model", default=default.model, help="name of the model to ask")
    add("--prompts", default="", help="JSONL file of prompts; default: the packaged mix")
    add("--max-tokens", type=int, default=default.max_tokens, help="most tokens per answer")
    add("--temperature", type=float, default=default.temperature, help="0 is greedy")


def config_from_options(options: Namespace) -> LoadTestConfig:
    """Return our settings from Locust's parsed options.

    Raises:
        ConfigError: an option is out of range.
    """
    seconds = options.run_time if isinstance(options.run_time, int) and options.run_time > 0 else 3600
    return LoadTestConfig(
        url=options.host or protocols.user_class(options.protocol).host or _DEFAULTS.url,
        model=options.model,
        protocol=options.protocol,
        users=options.num_users or 1,
        duration=f"{seconds}s",
        prompts=Path(options.prompts) if options.prompts else None,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        output=Path(options.results) if options.results else None,
    )


class StockRun:
    """Listens to one Locust ``Environment``: each test gets a fresh session.

    Raises:
        LoadTestError: prompts or output directory cannot be used.
    """

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._read_options()
        if self._config.output is not None:
            check_free(self._config.output, overwrite=False)

    def _read_options(self) -> None:
        config = config_from_options(self._environment.parsed_options)
        self._workload = workload_of(config)
        self._config = config

    def begin(self, **_: Any) -> None:
        """Start recording; called by Locust before it starts users."""
        try:
            self._read_options()  # the web UI may have changed them
        except LoadTestError as error:
            logger.error("%s; the test goes on with the settings before", error)
        self._directory = tempfile.TemporaryDirectory(prefix="trimaran-loadtest-")
        self._records = (Path(self._directory.name) / RECORDS_NAME).open("w", encoding="utf-8")
        self._collector = Collector(self._records)
        self._run = LoadRun(ended_by="Locust")
        self._started = datetime.now(UTC)
        self._cpu_before_s = time.process_time()
        attach(self._environment, Session(self._workload, self._collector))
        self._sampler = gevent.spawn(self._sample_users)
        self._environment.events.test_stopping.add_listener(self._stopping)

    def finish(self, **_: Any) -> None:
        """Stop recording and write the results, when a directory for them was given."""
        self._sampler.kill()
        self._environment.events.test_stopping.remove_listener(self._stopping)
        self._run.cpu_seconds = time.process_time() - self._cpu_before_s
        self._records.close()
        output = self._config.output
        if output is not None:
            with output_directory(output, overwrite=True) as directory:
                shutil.copyfile(self._records.name, directory / RECORDS_NAME)
                result = write_everything(directory, self._config, self._run, self._started)
            logger.info("%s", replace(result, output=output))
        self._directory.cleanup()

    def _stopping(self, **_: Any) -> None:
        self._run.end_ns = self._collector.now()

    def _sample_users(self) -> None:
        while True:
            self._run.user_counts.append((self._collector.now(), self._environment.runner.user_count))
            gevent.sleep(_SAMPLE_INTERVAL_S)
