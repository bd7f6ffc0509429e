"""docs/kubernetes.md from top to bottom, as a reader does it: no step undoes the one before."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm_tool import Helm
from tests.deploy.objects import Manifest, of_kind
from tests.deploy.test_docs import BLOCKS, CHARTS, commands, folder, template_arguments
from tests.deploy.test_manifests import admitted, controller

__all__ = ["folder"]

# They go with the next upgrade, as the page says.
OF_ONE_STEP = ("loadtest", "training")
# Files that take the place of another one in a command of the page, and what they make.
IN_PLACE = {
    "ingress.yaml": ("route.yaml", "Ingress/llm-trimaran"),
    "scaling-metrics.yaml": ("scaling.yaml", "PodMonitor/llm-trimaran"),
    "scaling-keda.yaml": ("scaling.yaml", "ScaledObject/llm-trimaran"),
}


class Cluster:
    """The objects of each release, as the upgrades so far left them."""

    def __init__(self, helm: Helm) -> None:
        self.helm = helm
        self.releases: dict[str, list[Manifest]] = {}
        self.jobs: dict[str, Any] = {}

    def upgrade(self, arguments: list[str]) -> set[str]:
        """Give a release new values; return the names of the objects that this takes away.

        Raises:
            AssertionError: helm refuses, or a Job would change, which Kubernetes forbids.
        """
        done = self.helm.run("template", *arguments, "--kube-version", "1.35")
        assert done.returncode == 0, done.stderr
        release = arguments[0]
        before, after = self.releases.get(release, []), [*filter(None, yaml.safe_load_all(done.stdout))]
        self.releases[release] = after
        for job in of_kind(after, "Job"):
            known = self.jobs.setdefault(job["metadata"]["name"], job["spec"])
            assert known == job["spec"], f"{job['metadata']['name']} is there already: choose another run"
        return names(before) - names(after)


def names(manifests: list[Manifest]) -> set[str]:
    return {f"{item['kind']}/{item['metadata']['name']}" for item in manifests}


@pytest.fixture
def steps(folder: Path) -> list[list[str]]:
    """The page's upgrades of our chart, and what edits a file between them, in their order."""
    every = [command for kind, text in BLOCKS if kind == "sh" for command in commands(text)]
    return [command for command in every if command[0] == "sed" or command in CHARTS]


def test_no_step_takes_away_what_one_before_made(helm: Helm, folder: Path, steps: list[list[str]]) -> None:
    cluster, edits = Cluster(helm), 0
    for command in steps:
        if command[0] == "sed":
            edited = folder / command[-1]
            before = edited.read_text(encoding="utf-8")
            subprocess.run(command, check=True, cwd=folder, timeout=60)
            assert edited.read_text(encoding="utf-8") != before
            edits += 1
            continue
        gone = cluster.upgrade(template_arguments(command))
        assert not [name for name in gone if not any(part in name for part in OF_ONE_STEP)], (
            f"{shlex.join(command)} takes away {gone}"
        )
        if "canary-weights.yaml" in command:
            (route,) = of_kind(cluster.releases["llm"], "HTTPRoute")
            stable, canary = (one["name"] for one in route["spec"]["rules"][0]["backendRefs"])
            assert controller("gateways") in admitted(cluster.releases["llm"], stable)
            assert controller("gateways") in admitted(cluster.releases["llm-canary"], canary)
    assert edits == 1
    (deployment,) = of_kind(cluster.releases["llm"], "Deployment")
    mounts = deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert "2026-06-01" in [mount.get("subPath") for mount in mounts]  # the upgrade lasts
    assert {"HTTPRoute/llm-trimaran", "HorizontalPodAutoscaler/llm-trimaran"} <= names(
        cluster.releases["llm"]
    )
    (training,) = of_kind(cluster.releases["train"], "Deployment")
    assert training["spec"]["replicas"] == 0


@pytest.mark.parametrize("name", IN_PLACE)
def test_files_that_take_the_place_of_another(helm: Helm, steps: list[list[str]], name: str) -> None:
    other, expected = IN_PLACE[name]
    command = next(command for command in steps if other in command)
    cluster = Cluster(helm)
    cluster.upgrade([name if part == other else part for part in template_arguments(command)])
    assert expected in names(cluster.releases["llm"])
