"""The deck: one command line over training, checkpoints, serving and loadtests.

``cli`` is the command tree, ``command_table`` what is in it, ``command_parser`` a dataclass as a
command line, ``config_file`` the YAML side of it, ``commands`` what each command prints and
returns, ``doctor`` what this machine can do, ``pipeline`` all stages in a row (the demo).
"""
