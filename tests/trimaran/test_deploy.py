"""``trimaran deploy``: sizes from real files, settings that compose and the chart accept."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import CheckpointError, ConfigError, ExportError, ServerError
from tests.deploy.helm_tool import REPOSITORY, unpack_helm
from tests.serving.endpoint import exported, sealed_llama
from trimaran.cli import main
from trimaran.deploy.compose import write_compose
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.containers import start
from trimaran.deploy.sizing import GIB, size

SLOTS, CONTEXT = 4, 256


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    checkpoint = sealed_llama(folder / "checkpoint", tiny_tokenizer)
    exported(checkpoint, folder / "models", slots=SLOTS, max_context=CONTEXT, threads=2)
    return folder / "models"


def environment(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_sizes_are_those_of_the_files(repository: Path) -> None:
    found = size(repository, "llm")
    weights = repository / "llm" / "1" / "checkpoint" / "model.safetensors"
    assert found.weight_bytes == weights.stat().st_size
    # The tiny Llama: what its own cache would hold in fp32.
    config = json.loads((repository / "llm" / "1" / "checkpoint" / "config.json").read_text())
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head * 4
    assert found.kv_bytes == per_token * SLOTS * CONTEXT
    assert found.memory_gib * GIB > found.weight_bytes + found.kv_bytes + found.runtime_bytes
    assert (found.cpus, found.gpus, found.instances) == (2, 0, 1)


def test_compose_gets_its_settings(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "compose"
    arguments = ["deploy", "compose", "--repository", str(repository), "--output", str(target)]
    assert main([*arguments, "--longest-request", "60"]) == 0
    said = capsys.readouterr().out
    assert "docker compose up -d --build" in said
    values = environment(target)
    assert values["TRIMARAN_REPOSITORY"] == str(repository)
    assert values["TRIMARAN_EXIT_SECONDS"] == "60"
    assert values["TRIMARAN_STOP_GRACE"] == "90s"
    text = (target / "compose.yaml").read_text()
    known = set(re.findall(r"\$\{(\w+)", text + (target / "compose.gpu.yaml").read_text()))
    assert set(values) <= known
    services = yaml.safe_load(text)["services"]
    assert services["triton"]["build"]["context"] == str(REPOSITORY)
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (target / source).exists(), volume
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_chart_takes_its_values(
    repository: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path / "helm"
    image = "registry.example.com:5000/trimaran/serve-cpu:1.2"
    arguments = ["deploy", "helm", "--repository", str(repository), "--output", str(target), "--image", image]
    assert main(arguments) == 0
    helm = unpack_helm(tmp_path_factory.mktemp("helm"))
    chart = target / "deploy" / "helm" / "trimaran"
    done = helm.run("lint", "--strict", chart, "--values", target / "values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = helm.run("template", "x", chart, "--values", target / "values.yaml", "--kube-version", "1.35")
    assert done.returncode == 0, done.stderr
    (deployment,) = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert container["resources"]["limits"]["memory"] == f"{size(repository, 'llm').memory_gib}Gi"
    assert any("--exit-timeout" in argument for argument in container["args"])


def test_what_cannot_be_deployed_is_said(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no version of model 'other'; it holds llm.*--model"):
        size(repository, "other")
    with pytest.raises(ServerError, match="trimaran export"):
        size(tmp_path / "none", "llm")
    with pytest.raises(ConfigError, match="target is 'helm'"):
        DeployConfig("helm", repository, up=True)
    with pytest.raises(ConfigError, match="longest_request is 0"):
        DeployConfig("compose", repository, longest_request=0)
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        write_compose(DeployConfig("compose", repository, output=tmp_path / "there"), size(repository, "llm"))


# Docker's SDK leaves the socket open on which nobody answered.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ServerError, match="DOCKER_HOST"):
        start(tmp_path, gpu=False)
    gc.collect()
