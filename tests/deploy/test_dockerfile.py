"""Dockerfile: what each image says of itself, and that each exception of the linter is argued."""

from __future__ import annotations

import re
import tomllib

from tests.deploy.helm_tool import REPOSITORY

TEXT = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
STAGES = dict(
    re.findall(r"^FROM \S+ AS (\S+)$\n(.*?)(?=^FROM |\Z)", TEXT, re.MULTILINE | re.DOTALL),
)
IMAGES = ("loadtest", "serve-cpu", "train", "serve-gpu")
LABELS = (
    *("title", "description", "licenses", "version"),
    *("base.name", "source", "revision", "created"),
)


def test_every_image_says_what_it_is_and_where_it_comes_from() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for name in IMAGES:
        labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', STAGES[name]))
        assert tuple(labels) == LABELS, name
        assert labels["version"] == version
        # An argument from before the first FROM is empty in a stage that does not name it again.
        declared = re.findall(r"^ARG (\w+)", STAGES[name], re.MULTILINE)
        for value in labels.values():
            assert set(re.findall(r"\$\{(\w+)\}", value)) <= set(declared), name


def test_labels_that_change_with_each_build_come_last() -> None:
    """A layer after them would be made again each time."""
    for name in IMAGES:
        assert not re.search(r"^(RUN|COPY)", STAGES[name].partition("ARG REVISION")[2], re.MULTILINE), name


def test_every_exception_of_the_linter_is_argued() -> None:
    lines = TEXT.splitlines()
    exceptions = [index for index, line in enumerate(lines) if line.startswith("# hadolint ignore")]
    assert len(exceptions) == 3
    for index in exceptions:
        assert re.match(r"# \w.*\.$", lines[index - 1]), lines[index - 1]


def test_pip_compiles_nothing() -> None:
    """slim.sh throws all byte code away, and makes what is used; pip would take a minute for it."""
    commands = re.findall(r"pip install(.*)", TEXT)
    assert len(commands) >= 8
    assert all(command.startswith(" --no-compile ") for command in commands)


def test_what_is_made_for_the_image_is_what_there_is() -> None:
    """A module that has moved would be noticed after minutes, when the image is built."""
    named = set(re.findall(r"\bserving\.engine\.[\w.]+", TEXT))
    for module in named:
        assert (REPOSITORY / module.replace(".", "/")).with_suffix(".py").is_file(), module
    folder = REPOSITORY / "serving/engine/torch/compiled"
    kernels = {path.relative_to(REPOSITORY).with_suffix("") for path in folder.rglob("*_kernel.py")}
    assert {".".join(path.parts) for path in kernels} <= named
