"""Locust's master and workers: the records of all workers in one result.

``messages.py`` says what they tell each other, ``worker.py`` and ``sender.py`` are a worker's side,
``master.py`` and ``merge.py`` the master's.
"""
