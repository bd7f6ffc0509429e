"""What plain ``locust -f`` needs around our users: a session per test, results and exit code at its end."""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent

from loadtests import protocols
from loadtests.arrivals.schedule import head_start_ns, make_schedule
from loadtests.collector import Collector
from loadtests.errors import LoadTestError
from loadtests.load import check_limits, workload_of
from loadtests.loop_lag import LoopLag
from loadtests.output import RECORDS_NAME, check_free, output_directory
from loadtests.process import LoadRun
from loadtests.result import LoadTestResult
from loadtests.run import check_files, write_everything
from loadtests.server_metrics.scraper import Scraper
from loadtests.session import Session, attach
from loadtests.stock_options import config_from_options
from loadtests.target import parse_targets

__all__ = ["EXIT_INCOMPLETE", "EXIT_INVALID", "EXIT_LIMIT_BROKEN", "StockRun"]

logger = logging.getLogger(__name__)
EXIT_LIMIT_BROKEN = 1
EXIT_INCOMPLETE = 3
EXIT_INVALID = 4
_SAMPLE_INTERVAL_S = 0.5


class StockRun:
    """Listens to one Locust ``Environment``: each test gets a fresh session.

    This one is Locust in one process. A master (``workers/master.py``) differs only in where the
    records come from.

    Raises:
        LoadTestError: prompts, arrivals, limits or output directory cannot be used.
    """

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._active = False
        self._session: Session | None = None
        self._read_options()
        if self._config.output is not None:
            check_free(self._config.output, overwrite=False)

    def listen(self) -> None:
        """Have Locust call this object."""
        events = self._environment.events
        events.test_start.add_listener(self.begin)
        events.test_stopping.add_listener(self.stopping)
        events.test_stop.add_listener(self.finish)

    def begin(self, **_: Any) -> None:
        """Start recording; called by Locust before it starts users."""
        try:
            self._read_options()  # the web UI may have changed them
        except LoadTestError as error:
            logger.error("%s; the test goes on with the settings before", error)
        self._directory = tempfile.TemporaryDirectory(prefix="trimaran-loadtest-")
        self._records = Path(self._directory.name) / RECORDS_NAME
        self._run = LoadRun(ended_by="Locust", server=self._server_facts())
        self._started = datetime.now(UTC)
        self._scraper = self._start_scraper()
        self._cpu_before_s = time.process_time()
        self._open_records()
        self._sampler = gevent.spawn(self._sample)
        self._active = True

    def stopping(self, **_: Any) -> None:
        """Note the end of the load; called by Locust before it stops users."""
        if self._active and not self._run.end_ns:
            self._run.end_ns = self._collector.now()
            if self._session is not None:
                self._session.close()  # users that wait for an arrival need not be waited for

    def finish(self, **_: Any) -> None:
        """Stop recording, judge, and write the results when a directory for them was given."""
        if not self._active:
            return
        self._active = False
        self._sampler.kill()
        self._run.cpu_seconds = time.process_time() - self._cpu_before_s
        self._run.origin_ns = self._collector.origin_ns
        self._close_records()
        with ExitStack() as stack:
            stack.callback(self._directory.cleanup)
            if self._scraper is not None:
                stack.push(self._scraper)
                self._scraper.stop()
            self._end(self._write())

    def _open_records(self) -> None:
        self._sink = self._records.open("w", encoding="utf-8")
        self._collector = Collector(self._sink)
        self._session = Session(self._workload, self._collector)
        if self._schedule is not None:
            self._session.schedule = self._schedule.times_ns
            self._collector.begin_in(head_start_ns(self._config.user_count))
        attach(self._environment, self._session)
        self._session.begin()
        gc.collect()  # of the test before, in the web interface
        gc.freeze()  # as in load.py
        self._lag = LoopLag(self._collector.now, self._config.warmup_ns)
        self._lag.start()

    def _close_records(self) -> None:
        self._sink.close()
        self._lag.close()
        self._run.loop_lag = self._lag.as_dict()

    def _look(self) -> None:
        """Called twice a second during a test."""

    def _read_options(self) -> None:
        config = config_from_options(self._environment.parsed_options)
        check_limits(config, protocols.user_class(config.protocol))
        check_files(config)
        begun_ns = time.perf_counter_ns()
        self._workload, self._schedule = workload_of(config), make_schedule(config)
        self._preparation_ns = time.perf_counter_ns() - begun_ns
        self._config = config

    def _write(self) -> LoadTestResult:
        output = self._config.output
        if output is None:
            return self._write_to(Path(self._directory.name))
        with output_directory(output, overwrite=True) as directory:
            shutil.copyfile(self._records, directory / RECORDS_NAME)
            result = self._write_to(directory)
        logger.info("%s", replace(result, output=output))
        return result

    def _write_to(self, directory: Path) -> LoadTestResult:
        return write_everything(directory, self._config, self._run, self._started, self._scraper)

    def _server_facts(self) -> dict[str, Any]:
        """Ask the endpoint about itself, as ``trimaran loadtest`` does."""
        user_class = protocols.user_class(self._config.protocol)
        try:
            target = parse_targets(self._config.url)[0]
            return user_class.preflight(target, self._config.model, self._workload.credentials)
        except LoadTestError as error:  # in the web UI there is nobody to tell but the log
            logger.error("%s; the test goes on without", error)
            return {}

    def _start_scraper(self) -> Scraper | None:
        try:
            scraper = Scraper(self._config)
        except LoadTestError as error:  # in the web UI there is nobody to tell but the log
            logger.error("%s; the test goes on without", error)
            return None
        scraper.start()
        return scraper

    def _end(self, result: LoadTestResult) -> None:
        """Choose the exit code. None leaves it to Locust (``--exit-code-on-error``)."""
        code = None
        verdict = result.verdict
        if not verdict.passed:
            logger.error("load test %s: %s", verdict.outcome, "; ".join(verdict.reasons))
            # Beside what the workers that were lost make of it.
            if len(verdict.invalid) > len(self._run.notes):
                code = EXIT_INVALID
            elif len(verdict.reasons) > len(verdict.invalid):
                code = EXIT_LIMIT_BROKEN
            else:
                code = EXIT_INCOMPLETE
        self._environment.process_exit_code = code

    def _sample(self) -> None:
        while True:
            self._run.user_counts.append((self._collector.now(), self._environment.runner.user_count))
            self._look()
            gevent.sleep(_SAMPLE_INTERVAL_S)
