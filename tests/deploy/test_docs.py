"""docs/kubernetes.md: a command is run or parsed here, or it says that it needs a cluster, and renders."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.helm_tool import CHART, FOREIGN, KUBERNETES, REPOSITORY, Helm
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

PAGE = REPOSITORY / "docs" / "kubernetes.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
OUR_CHART = "deploy/helm/trimaran"
NEEDS = ("# needs a cluster\n", "# needs a container engine\n")


def commands(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


HERE = [
    command
    for kind, text in BLOCKS
    if kind == "sh" and not text.startswith(NEEDS)
    for command in commands(text)
]
ELSEWHERE = [
    command for kind, text in BLOCKS if kind == "sh" and text.startswith(NEEDS) for command in commands(text)
]
CHARTS = [command for command in ELSEWHERE if command[:2] == ["helm", "upgrade"] and OUR_CHART in command]


def template_arguments(command: list[str]) -> list[str]:
    """Return the arguments of ``helm upgrade`` that ``helm template`` takes too."""
    arguments = command[2:]
    for name, takes_value in (("--install", False), ("--wait", False), ("--timeout", True)):
        if name in arguments:
            index = arguments.index(name)
            del arguments[index : index + 1 + takes_value]
    return arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the YAML files of the page, the repository's deploy/ beside them."""
    for kind, text in BLOCKS:
        if kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", text)
            assert name is not None, f"a YAML block does not say its file's name:\n{text}"
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
    (tmp_path / "deploy").symlink_to(REPOSITORY / "deploy")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_that_need_nothing(helm: Helm, folder: Path) -> None:
    assert len(HERE) >= 4
    for program, *arguments in HERE:
        if program == "helm":
            done = helm.run(*arguments)
            assert done.returncode == 0, done.stderr + done.stdout
        else:
            assert program == "trimaran"
            parse_command(COMMANDS[arguments[0]], arguments[1:])


@pytest.mark.parametrize("command", CHARTS, ids=" ".join)
def test_commands_for_a_cluster_render(helm: Helm, folder: Path, command: list[str]) -> None:
    text = " ".join(command)
    arguments = template_arguments(command)
    made: set[str] = set()
    for kubernetes in (KUBERNETES[0], KUBERNETES[-1]):
        done = helm.run("template", *arguments, "--kube-version", kubernetes)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        for item in filter(None, yaml.safe_load_all(done.stdout)):
            made.add(f"{item['kind']}/{item['metadata']['name']}")
            if item["kind"] not in FOREIGN:
                kubernetes_validate.validate(item, kubernetes, strict=True)
    for feature, made_by in (
        ("route.yaml", "HTTPRoute/llm-trimaran"),
        ("scaling.yaml", "HorizontalPodAutoscaler/llm-trimaran"),
        ("loadtest.run=one", "Job/llm-trimaran-loadtest-one"),
        ("loadtest.run=two", "Job/llm-trimaran-loadtest-two-workers"),
        ("training.yaml", f"Job/train-trimaran-training-{'two' if 'run=two' in text else 'one'}"),
        ("--install llm-canary", "Service/llm-canary-trimaran"),
        ("canary-ingress.yaml", "Ingress/llm-canary-trimaran"),
    ):
        if feature in text:
            assert made_by in made


def test_no_other_programs_than_those_that_were_thought_of() -> None:
    programs = {"helm", "kubectl", "docker", "printf", "sed", "while"}
    assert {command[0] for command in ELSEWHERE} <= programs
    assert len(CHARTS) >= 10


def test_manifests_of_the_page(folder: Path) -> None:
    for name in ("models-claim.yaml", "loader.yaml"):
        item = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        kubernetes_validate.validate(item, "1.35", strict=True)


def test_pages_lead_to_files() -> None:
    for page in (PAGE, CHART / "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
