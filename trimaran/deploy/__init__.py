"""``trimaran deploy``: a model repository -> settings for docker compose or for the Helm chart.

``config.py`` has the command's settings. ``sizing.py`` and ``memory.py`` say what a repository needs of a
machine. ``compose.py`` and ``helm.py`` (with ``values.py``) write it down for their tool; ``folder.py`` keeps
the output whole, ``checks.py`` warns, ``assets.py`` finds the files that are shipped. ``containers.py``
drives a Docker engine for ``--up`` and ``--down``. ``run.py`` is the command.
"""
