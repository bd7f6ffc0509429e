"""The chart renders, as the golden files say, into what each version of Kubernetes accepts."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy import golden
from tests.deploy.helm_tool import CHART, FOREIGN, KUBERNETES, Helm, schema_versions, value_sets

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


@pytest.mark.parametrize(
    ("name", "kubernetes"),
    [
        (name, kubernetes)
        for name in value_sets()
        for kubernetes in KUBERNETES
        if version_tuple(kubernetes) >= version_tuple(FIRST_VERSION.get(name, "0"))
    ],
)
def test_schema(helm: Helm, name: str, kubernetes: str) -> None:
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


def notes(helm: Helm, *settings: str) -> str:
    done = helm.run("install", "llm", CHART, "--dry-run=client", *(f"--set={one}" for one in settings))
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def test_notes_say_what_an_upgrade_costs(helm: Helm) -> None:
    assert "Each upgrade is a downtime" in notes(helm, "strategy=Recreate")
    assert "2 free GPU(s)" in notes(helm, "gpu.count=2")
    assert "no authentication" in notes(helm, "service.type=LoadBalancer")
    plain = notes(helm)
    assert "http://llm-trimaran.default.svc:8000" in plain
    assert "downtime" not in plain
    assert "no authentication" not in plain
    assert "routedByAnotherRelease" not in plain


def test_notes_say_what_a_canary_needs(helm: Helm) -> None:
    route = ("httpRoute.enabled=true", "httpRoute.parentRefs[0].name=public")
    canary = ("httpRoute.canary.serviceName=llm-canary", "httpRoute.canary.weight=5")
    said = notes(helm, *route, *canary)
    assert "llm-canary. Its release must let the Gateway in: networkPolicy.routedByAnotherRelease" in said


def test_notes_of_a_release_without_a_server_name_its_jobs(helm: Helm) -> None:
    said = notes(helm, "replicas=0", "podDisruptionBudget.enabled=false", "training.enabled=true")
    assert "has no server (replicas is 0)" in said
    assert "get jobs --selector app.kubernetes.io/instance=llm" in said
    assert "serves the model" not in said


def test_package_leaves_out_what_only_a_clone_needs(helm: Helm, tmp_path: Path) -> None:
    done = helm.run("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("trimaran-*.tgz")
    with tarfile.open(archive) as package:
        names = {name.removeprefix("trimaran/") for name in package.getnames()}
    assert {"README.md", "values.schema.json", "examples/prometheus-adapter-values.yaml"} <= names
    assert not [name for name in names if name.startswith("ci/") or name == "README.guide.md"]
