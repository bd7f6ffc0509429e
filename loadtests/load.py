"""Makes the load with Locust. Runs in the child process; its caller has patched it for gevent."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment
from locust.runners import LocalRunner

from loadtests import protocols
from loadtests.arrivals.schedule import Schedule, head_start_ns, make_schedule
from loadtests.collector import Collector
from loadtests.config import LoadTestConfig
from loadtests.credentials import read_credentials
from loadtests.errors import ConfigError
from loadtests.loop_lag import LoopLag
from loadtests.measured_user import MeasuredUser
from loadtests.session import Session, attach
from loadtests.target import parse_targets
from loadtests.workloads.source import load_prompts
from loadtests.workloads.workload import Workload, make_workload

__all__ = ["check_limits", "make_load", "workload_of"]

_STATUS_INTERVAL_S = 0.5
_LOOK_INTERVAL_S = 0.05
_OF_STREAMS = {"ttft", "itl", "tpot"}


def workload_of(config: LoadTestConfig) -> Workload:
    """Return what the users of this run ask.

    Raises:
        PromptFileError: the file of prompts cannot be used.
        ConfigError: a file of credentials or a tokenizer cannot be used, or a package is missing.
    """
    takes_messages = protocols.user_class(config.protocol).takes_messages
    return make_workload(
        config,
        load_prompts(config, takes_messages=takes_messages, most=config.max_requests),
        model=config.model,
        request_timeout_s=config.request_timeout_ns / 1e9,
        credentials=read_credentials(config),
    )


def check_limits(config: LoadTestConfig, user_class: type[MeasuredUser]) -> None:
    """Check that every limit can be measured.

    Raises:
        ConfigError: a limit on tokens, and a protocol that does not stream.
    """
    limited = {metric for metric, _ in config.latency_limits()} | set(config.objectives())
    if not user_class.streams and limited & _OF_STREAMS:
        raise ConfigError(
            f"protocol {config.protocol} does not stream, so there is no time to first token or between "
            "tokens; drop the limits on ttft, itl and tpot, or choose --protocol generate_stream"
        )


def make_load(
    config: LoadTestConfig, records: Path, report: Callable[[dict[str, Any]], None], stop: Event
) -> None:
    """Check the endpoint, run the users for the duration, stop them gracefully.

    Args:
        config: the settings.
        records: file for the raw records, one JSON line each.
        report: takes events: ``{"event": "ready", "server": {...}}`` once, ``"status"`` with the live
            counts twice a second, ``"stopping"`` when no more requests start, ``"done"`` at the end.
        stop: ends the load early once it is set.

    Raises:
        LoadTestError: the endpoint or a setting cannot be used.
    """
    user_class = protocols.user_class(config.protocol)
    check_limits(config, user_class)
    workload, schedule = workload_of(config), make_schedule(config)
    servers = [
        user_class.preflight(target, config.model, workload.credentials)
        for target in parse_targets(config.url)
    ]
    report({"event": "ready", "server": servers[0]})
    with records.open("w", encoding="utf-8") as sink:
        collector = Collector(sink)
        environment = Environment(
            user_classes=[user_class],
            host=config.url,
            stop_timeout=config.stop_timeout_ns / 1e9,
            catch_exceptions=False,
        )
        session = Session(
            workload, collector, config.max_requests, schedule=None if schedule is None else schedule.times_ns
        )
        session.spawn_rate = config.spawn_rate
        attach(environment, session)
        runner = environment.create_local_runner()
        lag = LoopLag(collector.now, config.warmup_ns)
        gc.freeze()  # what was imported until now is no garbage: to look for some in it stops every user
        cpu_before_s = time.process_time()
        collector.begin_in(0 if schedule is None else head_start_ns(config.user_count))
        session.begin()
        lag.start()
        runner.start(config.user_count, spawn_rate=config.spawn_rate or config.user_count)
        status = gevent.spawn(_report_status, runner, collector, report)
        ended_by = _wait_for_end(config, schedule, runner, collector, stop)
        end_ns = collector.now()
        lag.close()
        session.close(at_once=True)
        report({"event": "stopping", "in_flight": collector.in_flight})
        runner.quit()
        status.kill()
    if ended_by in ("max_requests", "schedule") and collector.last_end_ns:
        end_ns = min(end_ns, collector.last_end_ns)
    report(_status(runner, collector))
    cpu_s = time.process_time() - cpu_before_s
    report(
        {
            "event": "done",
            "end_ns": end_ns,
            "ended_by": ended_by,
            "cpu_seconds": cpu_s,
            "loop_lag": lag.as_dict(),
            "origin_ns": collector.origin_ns,
        }
    )


def _wait_for_end(
    config: LoadTestConfig, schedule: Schedule | None, runner: LocalRunner, collector: Collector, stop: Event
) -> str:
    spawned = False
    # A process with a rate goes on until the duration is over, also after its last arrival.
    open_ended = schedule is not None and not schedule.ends_early and config.max_requests is None
    while (left_s := (config.duration_ns - collector.now()) / 1e9) > 0:
        # Users with few requests to send may have come and gone between two looks.
        spawned = spawned or runner.user_count > 0 or collector.ok + collector.failed > 0
        if spawned and runner.user_count == 0 and not open_ended:
            reached = (
                config.max_requests is not None and collector.ok + collector.failed >= config.max_requests
            )
            return "max_requests" if schedule is None or reached else "schedule"
        if stop.wait(min(left_s, _LOOK_INTERVAL_S)):
            return "interrupt"
    return "duration"


def _status(runner: LocalRunner, collector: Collector) -> dict[str, Any]:
    return {
        "event": "status",
        "time_ns": collector.now(),
        "users": runner.user_count,
        "ok": collector.ok,
        "failed": collector.failed,
        "tokens": collector.tokens,
        "in_flight": collector.in_flight,
    }


def _report_status(
    runner: LocalRunner, collector: Collector, report: Callable[[dict[str, Any]], None]
) -> None:
    while True:
        gevent.sleep(_STATUS_INTERVAL_S)
        report(_status(runner, collector))
