"""``trimaran loadtest sweep``: many load tests, to find the highest load that an endpoint takes.

``config.py`` is the command's settings and ``run.py`` runs it. ``search.py`` says which load to measure
next, from the points that are there; ``knee.py`` finds where the curve bends. ``point.py`` is one load test
as a point of the curve, ``folder.py`` the output directory, from which a sweep that was cut goes on, and
``result.py`` the answer with the schema of ``sweep.json``. ``page.py``, ``curves.py`` and ``tables.py`` show
it to people.
"""
