"""``docs/training.md``: its commands are ones the command line takes, and the tests it names are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
LINES = re.findall(r"^(?:\$ )?(trimaran (?:train|merge|export) .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_one_we_take(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, command, *arguments = shlex.split(line)
    parse_command(COMMANDS[command], arguments)


def test_there_are_commands() -> None:
    assert len(LINES) >= 5


def test_the_tests_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:\w+/)?test_\w+)`", PAGE))
    assert len(named) > 10
    for name in named:
        assert list((ROOT / "tests").rglob(f"{name}.py")), name
