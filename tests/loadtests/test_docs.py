"""Every `trimaran-locust` command of docs/distributed-load.md is one that Locust and our options take."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.loadtests.conftest import ROOT

PAGE = (ROOT / "docs" / "distributed-load.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
# In a process of its own: Locust patches the standard library when it is imported.
PARSE = """
import sys
import loadtests.locustfile
from locust.argument_parser import get_parser
from loadtests.stock_options import config_from_options
config_from_options(get_parser().parse_args(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_is_accepted(command: list[str]) -> None:
    assert command[0] == "trimaran-locust"
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 3
