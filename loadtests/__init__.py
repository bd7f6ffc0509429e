"""Load tests with Locust: an LLM endpoint in, a verdict and a report out.

``config.py`` is the command's settings and ``run.py`` runs it. The load itself is made by Locust in
a child process (``python -m loadtests``: ``__main__.py``, ``child.py``, ``load.py``), because gevent
replaces sockets and threads of the process it lives in. ``users/`` has one Locust user per protocol,
``arrivals/`` the schedules of an open loop, ``workloads/`` what is asked, ``metrics/`` one metric per file,
``slo.py`` the limits,
``baseline.py`` the comparison with an earlier run, ``server_metrics/`` what the server says of the same
minutes, ``report/`` the HTML page and its smaller siblings. ``sweep/`` runs load tests in search of the
highest good load, and ``history/`` looks back at those that were run.
``locustfile.py`` gives the same users to plain Locust (``trimaran-locust``) and its web UI, in one process
or with a master and ``workers/``.

This package imports none of the others, and needs no torch.
"""
