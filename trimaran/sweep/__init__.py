"""``trimaran sweep``: export, serve, load-test and stop one serving configuration after the other.

``config.py`` has the command's settings, ``candidates.py`` the configurations that they describe.
``run.py`` drives the stages; the load on each endpoint is that of ``loadtests/sweep``. ``pareto.py`` says
which points no other beats and which configuration to use, ``result.py`` holds the answer with the schema of
``sweep.json``, and ``page.py`` draws ``sweep.html``.
"""
