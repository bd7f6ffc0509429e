"""The same users for plain Locust: ``locust -f loadtests/locustfile.py`` opens its web UI.

::

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000
    locust -f loadtests/locustfile.py --host grpc://127.0.0.1:8001 --protocol grpc
    locust -f loadtests/locustfile.py --headless -u 16 -r 16 -t 30s -s 10 --results out/run-1

Set Locust's ``-s`` (``--stop-timeout``), or requests in flight at the end are cut at once. With
``--results`` the end of each test writes results.json, requests.jsonl and report.html there, as
``trimaran loadtest`` does. One process only: workers would keep their records to themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Run from a clone, Locust has only this file's folder on its path.
_ROOT = str(Path(__file__).resolve().parent.parent)
if _ROOT not in sys.path:
    sys.path.append(_ROOT)

from locust import events  # noqa: E402
from locust.runners import MasterRunner, WorkerRunner  # noqa: E402

from loadtests import protocols  # noqa: E402
from loadtests.errors import LoadTestError  # noqa: E402
from loadtests.stock import StockRun, add_options  # noqa: E402

_classes = {name: protocols.user_class(name) for name in protocols.names()}
# Locust finds users among the names of this module.
globals().update({user_class.__name__: user_class for user_class in _classes.values()})


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _choose_protocol(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, (MasterRunner, WorkerRunner)):
        raise SystemExit(
            "loadtests: several processes are not supported yet; leave out --master and --worker"
        )
    options = environment.parsed_options
    if not options.user_classes:  # names on the command line win over --protocol
        environment.user_classes[:] = [_classes[options.protocol]]
    try:
        run = StockRun(environment)
    except LoadTestError as error:
        raise SystemExit(f"loadtests: {error}") from error
    environment.events.test_start.add_listener(run.begin)
    environment.events.test_stop.add_listener(run.finish)
