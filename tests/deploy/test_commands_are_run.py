"""Commands of the pages and files about deploying: each says who runs it, and what is named here does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.deploy.helm_tool import CHART, REPOSITORY, Helm, value_sets

CONTAINERS = "tests/deploy/containers"
GATE = "deploy/ci/gate.sh"
# The beginning of a command, and where what it does is done: a file (or folder) and a text in it.
RUN_BY = {
    "docker build --target serve-cpu": (GATE, "build triton loadtest"),
    "docker build --target loadtest": (GATE, "build triton loadtest"),
    "trimaran deploy compose": (CONTAINERS, "def test_deploy_brings_it_up_and_takes_it_down"),
    "cd deploy-compose": (CONTAINERS, "def test_deploy_brings_it_up_and_takes_it_down"),
    "echo TRIMARAN_REPOSITORY=": (CONTAINERS, '"TRIMARAN_REPOSITORY": '),
    # Without Grafana, as the page says.
    "docker compose up -d --build": (GATE, "up -d triton"),
    "docker compose --profile loadtest run": (GATE, "--profile loadtest run --rm loadtest"),
    "docker compose --profile locust up": (
        CONTAINERS,
        '"up", "-d", "--scale", "locust-worker=2", "locust-master"',
    ),
    "docker compose --profile locust down": (CONTAINERS, '"down", "--volumes", "--timeout"'),
    "docker cp": (CONTAINERS, 'docker("cp", f"{master}:/results/locust"'),
    "docker compose down": (CONTAINERS, '"down", "--volumes"'),
    "docker compose exec triton trimaran load": (CONTAINERS, '"exec", "-T", "triton", "trimaran", "load"'),
    "deploy/ci/gate.sh": (CONTAINERS, 'run_gate("--keep"'),
}


def blocks(page: Path) -> list[str]:
    found = re.findall(r"^```(?:sh)?\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for text in found if text.startswith("#")]


def lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ").splitlines()
    return [shlex.join(shlex.split(line)) for line in joined if line and not line.startswith("#")]


def who_runs(command: str) -> str | None:
    """Return the files that do what a command does, as one text; None where none is known."""
    for beginning, (place, _) in RUN_BY.items():
        if command.startswith(beginning):
            where = REPOSITORY / place
            files = sorted(where.glob("*.py")) if where.is_dir() else [where]
            return "\n".join(file.read_text(encoding="utf-8") for file in files)
    return None


def assert_is_run(command: str) -> None:
    texts = who_runs(command)
    assert texts is not None, (
        f"no test does this: {command}; add it to RUN_BY, or mark its block `# run by hand`"
    )
    (wanted,) = {text for beginning, (_, text) in RUN_BY.items() if command.startswith(beginning)}
    assert wanted in texts, f"{command}: {wanted!r} is not there any more"


def test_every_block_says_what_it_needs() -> None:
    page = REPOSITORY / "docs" / "deploy.md"
    heads = {text.splitlines()[0] for text in blocks(page)}
    assert heads == {"# needs a container engine", "# run by hand", "# needs a GPU"}
    assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```sh\n")


@pytest.mark.parametrize(
    "command",
    [
        command
        for text in blocks(REPOSITORY / "docs" / "deploy.md")
        if text.startswith("# needs a container engine\n")
        for command in lines(text)
    ],
)
def test_a_command_of_the_page_is_run(command: str) -> None:
    assert_is_run(command)


def test_the_commands_in_compose_yaml_are_run() -> None:
    text = (REPOSITORY / "compose.yaml").read_text(encoding="utf-8")
    head = text.partition("\n\n")[0]
    found = re.findall(r"^#   (\S.*?)(?:   .*)?$", head, re.MULTILINE)
    assert len(found) >= 5
    for command in found:
        assert_is_run(command)


def test_the_commands_in_the_charts_guide_render(helm: Helm) -> None:
    (block,) = re.findall(
        r"^```\n(.*?)^```$", (CHART / "README.guide.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    upgrade, test = block.splitlines()
    program, command, install, *arguments = shlex.split(upgrade)
    assert (program, command, install) == ("helm", "upgrade", "--install")
    (own,) = [part for part in arguments if part.endswith(".yaml")]
    rest = [part for part in arguments if part != "--create-namespace"]
    rest = [str(value_sets()["cpu"]) if part == own else part for part in rest]
    done = helm.run("template", *rest, "--kube-version", "1.35")
    assert done.returncode == 0, done.stderr
    assert "helm.sh/hook: test" in done.stdout  # what `helm test` runs
    assert test == "helm test llm --namespace serving"
