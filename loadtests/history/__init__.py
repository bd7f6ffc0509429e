"""The runs of a folder, oldest to newest: a table on the terminal, JSON, and a page of trends.

``config.py`` is the command's settings and ``run.py`` runs it: ``runs.py`` finds and reads the runs,
``table.py`` prints them, ``page.py`` draws them.
"""
