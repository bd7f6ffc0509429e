"""docs/deploy.md and docs/operations.md: every command of ours parses, every file named exists."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.deploy.helm_tool import REPOSITORY
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

PAGES = ("deploy.md", "operations.md")
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))


def commands(page: str) -> list[list[str]]:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_ours_parse(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = 0
    for command in commands(page):
        if "trimaran" in command:  # also what runs inside a container
            name, *arguments = command[command.index("trimaran") + 1 :]
            parse_command(COMMANDS[name], arguments)
            found += 1
        else:
            assert command[0] in ("docker", "deploy/ci/gate.sh", "cd"), command
    assert found > 1


def test_compose_commands_name_what_there_is() -> None:
    profiles = {one for service in COMPOSE["services"].values() for one in service.get("profiles", [])}
    for command in commands("deploy.md"):
        if command[:2] != ["docker", "compose"]:
            continue
        if "--profile" in command:
            assert command[command.index("--profile") + 1] in profiles
        for verb in ("exec", "run"):
            if verb in command:
                rest = [word for word in command[command.index(verb) + 1 :] if not word.startswith("-")]
                assert rest[0] in COMPOSE["services"]
        for name, following in itertools.pairwise(command):
            if name == "-f":
                assert (REPOSITORY / following).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = REPOSITORY / "docs"
    for target in re.findall(r"\]\(([^)#:]+)\)", (folder / page).read_text(encoding="utf-8")):
        assert (folder / target).exists(), target


def test_the_dockerfile_has_the_targets_that_are_named() -> None:
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    page = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w-]+)` \|.*\| `trimaran|^\| `(serve-cpu-baked)`", page, re.MULTILINE))
    assert {name for pair in named for name in pair if name} <= targets
    for service in COMPOSE["services"].values():
        assert service.get("build", {}).get("target", "serve-cpu") in targets


def test_every_service_is_confined() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
