"""A Locust worker: its users' records go to the master."""

from __future__ import annotations

import gc
import logging
import time
from dataclasses import dataclass
from typing import Any

from loadtests.arrivals.schedule import Schedule, make_schedule
from loadtests.collector import Collector
from loadtests.durations import NS_PER_SECOND
from loadtests.errors import LoadTestError
from loadtests.load import workload_of
from loadtests.loop_lag import LoopLag
from loadtests.session import Session, attach
from loadtests.stock_options import config_from_options
from loadtests.workers.messages import ORDER, STOP
from loadtests.workers.sender import RecordSender

__all__ = ["WorkerRun"]

logger = logging.getLogger(__name__)
_LONGEST_WAIT_NS = 60 * NS_PER_SECOND


@dataclass
class _Test:
    run: str
    session: Session
    sender: RecordSender
    problem: str | None
    lag: LoopLag


class WorkerRun:
    """Listens to the ``Environment`` of a worker. Settings come from the master with each test.

    Raises:
        LoadTestError: this worker's own prompts or options cannot be used.
    """

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._test: _Test | None = None
        self._stopped = ""
        self._workload = workload_of(config_from_options(environment.parsed_options))

    def listen(self) -> None:
        """Have Locust call this object."""
        events = self._environment.events
        events.test_start.add_listener(self.begin)
        events.test_stopping.add_listener(self.stopping)
        events.test_stop.add_listener(self.finish)
        events.quitting.add_listener(self.quit)
        self._runner.register_message(STOP, self.stop)

    def begin(self, **_: Any) -> None:
        """Start recording; called by Locust before it starts users."""
        options = self._environment.parsed_options
        order: dict[str, Any] = getattr(options, ORDER, {"run": "", "workers": [], "begin_unix_ns": None})
        # Locust keeps it from its workers; the stages of a rate fill it.
        options.run_time = order.get("run_time")
        problem: str | None = None
        schedule: Schedule | None = None
        try:
            config = config_from_options(options)
            self._workload, schedule = workload_of(config), make_schedule(config)
        except LoadTestError as error:  # the master read its own files, not this machine's
            logger.error("%s; this worker sends no requests", error)
            problem = str(error)
        rank, workers = self._place(order["workers"])
        collector = Collector(None)
        sender = RecordSender(order["run"], self._runner.send_message, collector.now)
        collector.sink = sender
        session = Session(self._workload, collector, first=rank, step=workers)
        if schedule is not None:
            session.schedule = schedule.times_ns
            # A clock that is off makes this wrong. The master sees that when it lines up the workers.
            wait_ns = order["begin_unix_ns"] - time.time_ns()
            collector.begin_in(min(max(wait_ns, 0), _LONGEST_WAIT_NS))
            if self._runner.client_id not in order["workers"] and problem is None:
                problem = "it joined after the load had begun, and the schedule was shared among the others"
        session.begin()
        if problem is not None or order["run"] == self._stopped:
            # The test is over, yet Locust's ramp-up still sent users.
            session.close()
        lag = LoopLag(collector.now, config.warmup_ns if problem is None else 0)
        gc.freeze()  # as in load.py
        lag.start()
        self._test = _Test(order["run"], session, sender, problem, lag)
        attach(self._environment, session)
        sender.start()

    def stopping(self, **_: Any) -> None:
        """Hand out no more requests; called by Locust before it waits for its users."""
        if self._test is not None:
            self._test.lag.close()
            self._test.session.close()

    def finish(self, **_: Any) -> None:
        """Send what is left; called by Locust when all users have stopped."""
        if self._test is None:
            return
        test, self._test = self._test, None
        self._stopped = test.run
        test.lag.close()
        test.session.close()
        test.sender.close(test.problem, None if test.problem else test.lag.as_dict())
        # The verdict is the master's: a failed request alone does not make this process fail.
        self._environment.process_exit_code = 0

    def stop(self, msg: Any, **_: Any) -> None:
        """Stop when the master says so, and report; its answer to Locust's own messages comes later."""
        run = msg.data["run"]
        if self._test is not None and self._test.run == run:
            self._runner.stop()
        elif self._stopped != run:  # no users came yet
            self._stopped = run
            RecordSender(run, self._runner.send_message, lambda: 0).close()

    def quit(self, **_: Any) -> None:
        """Stop and report before Locust tells the master that this worker leaves (SIGTERM)."""
        if self._test is not None:
            self._runner.stop()

    def _place(self, workers: list[str]) -> tuple[int, int]:
        """Return this worker's number among the workers, and how many there are."""
        own = self._runner.client_id
        if own in workers:
            return workers.index(own), len(workers)
        return self._runner.worker_index, max(1, len(workers))  # it joined later
