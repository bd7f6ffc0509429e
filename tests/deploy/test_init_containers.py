"""The scripts of the init containers, run here by a real shell on a small repository."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints.manifest import MANIFEST_NAME, seal
from tests.checkpoints.test_manifest import MANIFEST
from tests.deploy.helm_tool import Helm, value_sets
from tests.deploy.objects import server_pod


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models as `export` lays them out; llm_infer holds no checkpoint."""
    for version in ("1", "2"):
        checkpoint = tmp_path / "source" / "llm" / version / "checkpoint"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(b"weights " + version.encode())
        seal(checkpoint, replace(MANIFEST, parent=None))
    (tmp_path / "source" / "llm_infer" / "1").mkdir(parents=True)
    return tmp_path / "source"


def run(
    helm: Helm, container: str, folders: dict[str, Path], tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    """Run an init container's script with its mount paths replaced by folders of ours."""
    pod = server_pod(helm.manifests("--values", value_sets()["gpu"]))
    (found,) = [one for one in pod["spec"]["initContainers"] if one["name"] == container]
    shell, options, script = found["command"]
    assert {mount["mountPath"] for mount in found["volumeMounts"]} - {"/tmp"} == set(folders)
    for path, folder in folders.items():
        script = script.replace(f"{path}/", f"{folder}/")
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    trimaran = programs / "trimaran"
    trimaran.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trimaran "$@"\n')
    trimaran.chmod(0o755)
    environment = {item["name"]: item["value"] for item in found["env"]}
    environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    if "FROM" in environment:
        environment["FROM"] = str(folders[environment["FROM"]])
    return subprocess.run(
        [shell, options, script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_copy_then_verify(helm: Helm, repository: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for _ in range(2):  # a pod whose sandbox was lost runs its init containers again
        done = run(helm, "copy-model", {"/source": repository, "/target": target}, tmp_path)
        assert done.returncode == 0, done.stderr
    done = run(helm, "verify-model", {"/models": target}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("files match the manifest") == 2


def test_a_damaged_file_keeps_the_server_from_starting(helm: Helm, repository: Path, tmp_path: Path) -> None:
    (repository / "llm" / "2" / "checkpoint" / "model.safetensors").write_bytes(b"weights 3")
    done = run(helm, "verify-model", {"/models": repository}, tmp_path)
    assert done.returncode == 2
    assert "model.safetensors has sha256" in done.stderr


def test_a_repository_without_manifests_is_refused(helm: Helm, repository: Path, tmp_path: Path) -> None:
    for manifest in repository.rglob(MANIFEST_NAME):
        manifest.unlink()
    done = run(helm, "verify-model", {"/models": repository}, tmp_path)
    assert done.returncode == 2
    assert "not a repository that trimaran export wrote" in done.stderr
