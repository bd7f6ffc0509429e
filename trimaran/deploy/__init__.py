"""``trimaran deploy``: a model repository -> settings for docker compose or for the Helm chart.

``config.py`` has the command's settings, ``sizing.py`` says what a repository needs of a machine,
``compose.py`` and ``helm.py`` write it down for their tool, ``assets.py`` finds the files that are shipped,
``containers.py`` drives a Docker engine for ``--up``.
"""
