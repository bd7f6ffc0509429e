"""A Locust master: one result from the records of all workers."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import uuid4

import gevent
from locust.runners import STATE_MISSING

from loadtests.arrivals.schedule import head_start_ns
from loadtests.collector import Collector
from loadtests.durations import format_duration
from loadtests.loop_lag import merged_lag
from loadtests.stock import StockRun
from loadtests.workers.merge import WorkerShare, merge
from loadtests.workers.messages import DONE, FORMAT, ORDER, RECORDS, STOP

__all__ = ["MasterRun"]

logger = logging.getLogger(__name__)
_LOOK_INTERVAL_S = 0.05
# As long as Locust itself waits for workers above the stop timeout.
_STOP_GRACE_S = 60.0


class MasterRun(StockRun):
    """Listens to the ``Environment`` of a master.

    Raises:
        LoadTestError: as for ``StockRun``.
    """

    def listen(self) -> None:
        """Have Locust call this object."""
        super().listen()
        self._run_name = ""
        self._shares: dict[str, WorkerShare] = {}
        self._runner = self._environment.runner
        self._environment.events.quitting.add_listener(self.quit)
        self._runner.register_message(RECORDS, self._take)
        self._runner.register_message(DONE, self._take_last)

    def stopping(self, **_: Any) -> None:
        """Stop the workers and wait for the last of their records.

        Locust, when headless, would end the test before its workers do, and leave half a second later.
        """
        if not self._active or self._run.end_ns:
            return
        super().stopping()
        self._runner.send_message(STOP, {"run": self._run_name})
        with gevent.Timeout(self._environment.stop_timeout + _STOP_GRACE_S, False):
            while self._awaited():
                gevent.sleep(_LOOK_INTERVAL_S)

    def finish(self, **_: Any) -> None:
        """Write the one result. A headless master whose workers are all gone has nothing to stay for."""
        super().finish()
        if self._environment.parsed_options.headless and self._runner.worker_count == 0:
            gevent.spawn(self._runner.quit)  # from here it would end the greenlet that called us

    def quit(self, **_: Any) -> None:
        """Have workers leave that Locust forgot, because they stopped and are not ready again yet."""
        for name in self._shares:
            if name not in self._runner.clients:
                self._runner.send_message("quit", client_id=name)

    def _open_records(self) -> None:
        self._collector = Collector(None)  # for its clock
        self._run_name = uuid4().hex
        self._shares = {}
        self._strangers: set[str] = set()
        workers = [node.id for node in self._runner.clients.all if node.state != STATE_MISSING]
        for name in workers:
            self._share(name)
        begin_unix_ns = None
        if self._schedule is not None:
            # Each worker prepares the same; twice the time, as several may share a core.
            wait_ns = head_start_ns(self._config.user_count, distributed=True) + 2 * self._preparation_ns
            self._collector.begin_in(wait_ns)
            begin_unix_ns = time.time_ns() + wait_ns
        options = self._environment.parsed_options
        order = {
            "run": self._run_name,
            "workers": workers,
            "begin_unix_ns": begin_unix_ns,
            "run_time": options.run_time,
        }
        # Locust sends its workers those parsed options that are not its own.
        setattr(options, ORDER, order)

    def _close_records(self) -> None:
        shares = sorted(self._shares.values(), key=lambda share: share.index)
        for share in shares:
            if not share.done:
                self._note(share, f"was lost: its {share.received} requests until then count")
            elif share.announced is not None and share.announced != share.received:
                self._note(share, f"sent {share.announced} requests, {share.received} arrived")
            skew_ns = abs(share.shift_ns or 0)
            if self._schedule is not None and skew_ns > self._config.max_lateness_p99_ns:
                self._note(
                    share,
                    f"ran its part of the schedule {format_duration(skew_ns)} off the others': "
                    "let NTP set the clocks of all machines",
                )
        merge(shares, self._records)
        self._run.loop_lag = merged_lag([share.loop_lag for share in shares])
        self._run.cpu_seconds += sum(share.cpu_seconds for share in shares)
        self._run.workers = [share.as_dict() for share in shares]

    def _take(self, msg: Any, **_: Any) -> bool:
        """Take records of a worker; return whether they belong to this test."""
        data = msg.data
        if not self._active or data.get("run") != self._run_name:
            return False  # of a test that is over
        if data.get("format") != FORMAT:
            if msg.node_id not in self._strangers:
                self._strangers.add(msg.node_id)
                share = self._share(msg.node_id)
                share.done = True  # not lost
                self._note(share, "runs another version of Trimaran: its requests do not count")
            return False
        self._share(msg.node_id).take(data, self._collector.now())
        return True

    def _take_last(self, msg: Any, **_: Any) -> None:
        """Take a worker's word that it has sent everything."""
        if not self._take(msg):
            return
        share = self._shares[msg.node_id]
        share.done, share.announced, share.loop_lag = True, msg.data["count"], msg.data["loop_lag"]
        if problem := msg.data["problem"]:
            self._note(share, f"sent no requests: {problem}")
        elif not self._run.end_ns:
            after = format_duration(self._collector.now())
            self._note(share, f"left after {after}: its {share.received} requests until then count")

    def _share(self, name: str) -> WorkerShare:
        if name not in self._shares:
            path = self._records.with_name(f"worker-{len(self._shares)}.jsonl")
            self._shares[name] = WorkerShare(name, self._runner.get_worker_index(name), path)
        return self._shares[name]

    def _awaited(self) -> list[WorkerShare]:
        """Return the workers whose last records may still come."""
        return [share for share in self._shares.values() if not share.done and not self._missing(share)]

    def _missing(self, share: WorkerShare) -> bool:
        node = self._runner.clients.get(share.name)
        return node is None or node.state == STATE_MISSING

    def _look(self) -> None:
        for share in self._shares.values():
            missing = not share.done and self._missing(share)
            if missing and not share.lost:
                logger.warning("worker %s (index %d) does not answer any more", share.name, share.index)
            share.lost = missing

    def _note(self, share: WorkerShare, text: str) -> None:
        note = f"worker {share.name} (index {share.index}) {text}"
        logger.warning("%s", note)
        self._run.notes.append(note)
