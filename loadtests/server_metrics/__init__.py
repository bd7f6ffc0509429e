"""What the server says of the same minutes: its Prometheus metrics, read during the run.

``endpoint.py`` finds where they are, ``scraper.py`` starts the process (``__main__.py``) that reads them, so
that the process that measures latencies is not disturbed, and ``snapshot.py`` is what it leaves.
``batch_sizes.py`` adds what only Triton's statistics of the model have, ``engines.py`` says what answered.
``growth.py`` turns counters into what they grew by, ``gauges.py`` reads the rest, and ``summary.py`` writes
both down, on the clock of the load.
"""
