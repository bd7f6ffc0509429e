"""The chart renders, as the golden files say, into what each version of Kubernetes accepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy import golden
from tests.deploy.helm_tool import CHART, KUBERNETES, Helm, schema_versions, value_sets

# Kinds of other projects, which kubernetes-validate has no schema for.
FOREIGN = {"HTTPRoute", "PodMonitor", "ScaledObject", "TrainJob", "TrainingRuntime"}
# An image volume is refused where it does not exist: test_refusals.
FIRST_VERSION = {"jobs": "1.31"}


def version_tuple(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("name", [None, *value_sets()])
def test_strict_lint(helm: Helm, name: str | None) -> None:
    values = ["--values", str(value_sets()[name])] if name else []
    done = helm.run("lint", "--strict", CHART, "--kube-version", "1.35", *values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", golden.SETS)
def test_golden_file(helm: Helm, name: str) -> None:
    expected = (golden.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert golden.render(helm, name) == expected, "renew with: python -m tests.deploy.golden"


def test_schemas_of_all_promised_versions_are_there() -> None:
    assert schema_versions() == KUBERNETES


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("name", value_sets())
def test_schema(helm: Helm, name: str, kubernetes: str) -> None:
    if version_tuple(kubernetes) < version_tuple(FIRST_VERSION.get(name, "0")):
        pytest.skip("not offered there")
    checked = 0
    for item in helm.manifests("--values", value_sets()[name], kubernetes=kubernetes):
        if item["kind"] not in FOREIGN:
            assert kubernetes_validate.validate(item, kubernetes, strict=True) == kubernetes
            checked += 1
    assert checked >= 6


def test_a_schema_finds_a_typing_error(helm: Helm) -> None:
    item = next(item for item in helm.manifests() if item["kind"] == "Deployment")
    item["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(item, "1.35", strict=True)


def test_examples_are_yaml() -> None:
    files: list[Path] = list((CHART / "examples").glob("*.yaml"))
    assert files
    for path in files:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert isinstance(content, dict), path
