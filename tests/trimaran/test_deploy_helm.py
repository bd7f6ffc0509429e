"""``trimaran deploy helm``: values that the chart takes, and no more of them than differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpoints.errors import DeployError
from tests.deploy.helm_tool import CHART, Helm, unpack_helm
from tests.serving.endpoint import exported
from trimaran.cli import main
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.helm import check_values, next_commands
from trimaran.deploy.sizing import size
from trimaran.deploy.values import Value, render_values

IMAGE = "registry.example.com:5000/trimaran/serve-cpu:1.2"


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return unpack_helm(tmp_path_factory.mktemp("helm"))


def deploy(repository: Path, output: Path, *options: str) -> Path:
    assert main(["deploy", "helm", "--repository", str(repository), "--output", str(output), *options]) == 0
    return output


def deployment(helm: Helm, folder: Path) -> dict[str, Any]:
    chart, values = folder / "trimaran", folder / "values.yaml"
    linted = helm.run("lint", "--strict", chart, "--values", values)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    done = helm.run("template", "x", chart, "--values", values, "--kube-version", "1.35")
    assert done.returncode == 0, done.stderr
    (found,) = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Deployment"]
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


def test_the_chart_renders_with_the_values(helm: Helm, repository: Path, tmp_path: Path) -> None:
    folder = deploy(repository, tmp_path / "out", "--image", IMAGE, "--longest-request", "60")
    pod = deployment(helm, folder)
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    memory = f"{size(DeployConfig('helm', repository)).memory_gib}Gi"
    assert container["resources"]["limits"] == {"cpu": "2", "memory": memory}
    assert container["resources"]["requests"] == {"cpu": "2", "memory": memory}
    arguments = " ".join(container["args"])
    assert re.search(r"--exit-timeout[= ]60\b", arguments)
    assert re.search(r"--threads[= ]2\b", arguments)
    assert pod["terminationGracePeriodSeconds"] >= 60 + 30
    assert (folder / "trimaran" / "templates" / "tests").is_dir(), "helm test needs them"


def test_gpus_and_shared_memory(helm: Helm, tiny_checkpoint: Path, tmp_path: Path) -> None:
    exported(tiny_checkpoint, tmp_path / "models", name="my_Model", device="gpu", instances=3)
    options = ("--model", "my_Model", "--gpus", "2", "--start-seconds", "1200", "--cpus", "6")
    pod = deployment(helm, deploy(tmp_path / "models", tmp_path / "out", *options))
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["resources"]["limits"]["cpu"] == "6"
    assert container["image"].startswith("registry.example.com/trimaran/serve-gpu:")
    shm = [one["emptyDir"]["sizeLimit"] for one in pod["volumes"] if one.get("emptyDir", {}).get("medium")]
    assert shm == ["2Gi"]  # 256 MiB for each of 3 instances on 2 GPUs
    assert "my_Model" in container["startupProbe"]["httpGet"]["path"]


def test_only_what_differs_is_written_with_its_reason(repository: Path, tmp_path: Path) -> None:
    text = (deploy(repository, tmp_path / "out") / "values.yaml").read_text()
    values = yaml.safe_load(text)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def leaves(tree: Any, *path: str) -> Any:
        for key, value in tree.items():
            yield from leaves(value, *path, key) if isinstance(value, dict) else [((*path, key), value)]

    for path, value in leaves(values):
        default: Any = defaults
        for key in path:
            default = default[key]
        assert value != default, path
    assert "gpu" not in values
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r" *\w+: .", line):
            assert lines[number - 1].lstrip().startswith("# "), f"no reason above {line!r}"


def test_images_in_every_form(helm: Helm, repository: Path, tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    for number, image in enumerate(
        (f"r.example.com/a@{digest}", "r.example.com:5000/a:1", "r.example.com:5000/a")
    ):
        pod = deployment(helm, deploy(repository, tmp_path / str(number), "--image", image))
        found = pod["containers"][0]["image"]
        assert found == (image if ":" in image.rpartition("/")[2] else f"{image}:0.1.0")


def test_the_commands_name_a_release_that_the_chart_takes(
    helm: Helm, repository: Path, tmp_path: Path
) -> None:
    folder = deploy(repository, tmp_path / "out")
    for model in ("my_Model.v2", "x" * 60, "-_-", "llm"):
        config = DeployConfig("helm", repository, model=model, output=folder)
        sizing = size(DeployConfig("helm", repository))
        (line,) = [one for one in next_commands(config, sizing) if one.startswith("helm upgrade --install ")]
        words = line.split()
        done = helm.run("template", words[3], words[4], "--kube-version", "1.35")
        assert done.returncode == 0, (model, done.stderr)


def test_values_that_the_schema_refuses_are_named() -> None:
    with pytest.raises(DeployError, match=r"the chart refuses server\.threads: -1"):
        check_values({"server": {"threads": -1}}, CHART)
    with pytest.raises(DeployError, match=r"the chart refuses the values: .*nonsense"):
        check_values({"nonsense": 1}, CHART)
    check_values({}, CHART)


def test_text_stays_text() -> None:
    values = [Value(("a", "b"), "1", "x"), Value(("a", "c", "d"), "yes", "y"), Value(("e",), 'q"#: ', "z")]
    assert yaml.safe_load(render_values(values, {})) == {"a": {"b": "1", "c": {"d": "yes"}}, "e": 'q"#: '}
    assert yaml.safe_load(render_values(values, {"a": {"b": "1", "c": {"d": "yes"}}, "e": 'q"#: '})) == {}
