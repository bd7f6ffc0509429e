"""The same users for plain Locust: ``trimaran-locust`` is ``locust -f`` with this file, wherever it is.

::

    trimaran-locust --host http://127.0.0.1:8000                      # opens Locust's web UI
    trimaran-locust --host grpc://127.0.0.1:8001 --protocol grpc
    trimaran-locust --headless -u 16 -r 16 -t 30s -s 10 --results out/run-1 --max-ttft-p95 800ms
    trimaran-locust --headless --arrivals poisson --rate 20 -t 30s -s 10 --results out/run-2
    trimaran-locust --headless ... --processes 4                      # a master and 4 workers here
    trimaran-locust --headless ... --master --expect-workers 2        # and elsewhere, twice:
    trimaran-locust --worker --master-host HOST

Set Locust's ``-s`` (``--stop-timeout``), or requests in flight at the end are cut at once. With
``--results`` the end of each test writes results.json, requests.jsonl and report.html there, as
``trimaran loadtest`` does; a master does it for all workers, which take their settings from it.

In an open loop (``--arrivals``) ``-u`` is the most requests in flight; leave ``-u`` and ``-r`` out and enough
users are there from the beginning.

Exit code: 1 when a limit is broken (``--max-failure-rate`` always is one), 3 when the limits hold but
a worker was lost, so that the load was less than asked for, 4 when requests of an open loop were sent
too late (``--max-lateness-p99``) or the load generator was too busy to see when answers came
(``--max-loop-lag-p95``), so that no number counts. Else Locust's own rule: 0, or
``--exit-code-on-error`` (1) when any request failed; with ``--exit-code-on-error 0`` only the limits count.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Run from a clone, Locust has only this file's folder on its path.
_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:
    sys.path.append(_ROOT)

import gevent  # noqa: E402
from locust import events  # noqa: E402
from locust.runners import MasterRunner, WorkerRunner  # noqa: E402

from loadtests import protocols  # noqa: E402
from loadtests.errors import LoadTestError  # noqa: E402
from loadtests.stock import StockRun  # noqa: E402
from loadtests.stock_options import add_options, config_from_options  # noqa: E402
from loadtests.workers.master import MasterRun  # noqa: E402
from loadtests.workers.worker import WorkerRun  # noqa: E402

_classes = {name: protocols.user_class(name) for name in protocols.names()}
# Locust finds users among the names of this module.
globals().update({user_class.__name__: user_class for user_class in _classes.values()})


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _listen(environment: Any, **_: Any) -> None:
    options, runner = environment.parsed_options, environment.runner
    worker = isinstance(runner, WorkerRunner)
    # Names on the command line win over --protocol; a worker has all, its master names one.
    if not options.user_classes and not worker:
        environment.user_classes[:] = [_classes[options.protocol]]
    kind: type[StockRun] | type[WorkerRun] = StockRun
    if worker:
        kind = WorkerRun
    elif isinstance(runner, MasterRunner):
        kind = MasterRun
    try:
        if options.arrivals != "closed" and not worker:
            # All users at once, and enough of them: an open loop must not wait for a free one.
            options.num_users = config_from_options(options).user_count
            options.spawn_rate = options.spawn_rate or options.num_users
        kind(environment).listen()
        # Locust sets the alarm of -t next. gevent counts it from its loop's last look at the clock, which was
        # before imports and prompts: tests were too short by that, and a short one ended before it began.
        gevent.get_hub().loop.update_now()
    except LoadTestError as error:
        raise SystemExit(f"loadtests: {error}") from error
