"""``trimaran deploy compose``: the folder, what compose makes of it, and what is refused."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpoints.errors import ConfigError, DeployError
from tests.deploy.compose_tool import VERSIONS, compose_program
from tests.deploy.helm_tool import REPOSITORY
from trimaran.cli import main
from trimaran.deploy import assets
from trimaran.deploy.checks import warnings
from trimaran.deploy.compose import next_commands, write_compose
from trimaran.deploy.config import DeployConfig
from trimaran.deploy.sizing import size


def deploy(repository: Path, output: Path, **options: Any) -> DeployConfig:
    config = DeployConfig("compose", repository, output=output, **options)
    write_compose(config, size(config))
    return config


def environment(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def compose_config(folder: Path, version: str) -> dict[str, Any]:
    """What Docker Compose reads there; it needs no engine for that."""
    program = compose_program(version)
    done = subprocess.run(
        [program, "--profile", "loadtest", "--profile", "locust", "config"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return services


def test_the_folder_holds_all_that_compose_needs(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "compose"
    arguments = ["deploy", "compose", "--repository", str(repository), "--output", str(target)]
    assert main([*arguments, "--longest-request", "60", "--http-port", "9000"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"weights +[\d.]+ MB +sizes of the checkpoint's files", said)
    assert "docker compose up -d --build" in said
    assert "docker compose down" in said
    values = environment(target)
    assert values["TRIMARAN_REPOSITORY"] == str(repository)
    assert values["TRIMARAN_MEMORY"] == f"{size(DeployConfig('compose', repository)).memory_gib}g"
    assert values["TRIMARAN_EXIT_SECONDS"] == "60"
    assert values["TRIMARAN_STOP_GRACE"] == "90s"
    text = (target / "compose.yaml").read_text() + (target / "compose.gpu.yaml").read_text()
    assert set(values) <= set(re.findall(r"\$\{(\w+)", text)), "a variable that compose.yaml does not read"
    lines = (target / ".env").read_text().splitlines()
    for number, line in enumerate(lines):
        assert line.startswith("#") or lines[number - 1].startswith("# "), f"no reason above {line}"
    for service in yaml.safe_load((target / "compose.yaml").read_text())["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (target / source).exists(), volume
    monitored = target / "deploy" / "prometheus"
    for pattern in yaml.safe_load((monitored / "prometheus.yml").read_text())["rule_files"]:
        assert list(monitored.glob(pattern)), pattern


@pytest.mark.parametrize("version", VERSIONS)
def test_compose_reads_what_was_written(repository: Path, tmp_path: Path, version: str) -> None:
    strange = tmp_path / "my models #1 $HOME"
    shutil.copytree(repository, strange)
    config = deploy(strange, tmp_path / "out", http_port=9000, locust_port=9089, cpus=3, start_seconds=700)
    services = compose_config(config.folder, version)
    triton = services["triton"]
    volumes = [
        one if isinstance(one, str) else f"{one['source']}:{one['target']}" for one in triton["volumes"]
    ]
    # Compose v2 prints a dollar as it would have to be written.
    assert any(one.replace("$$", "$").startswith(f"{strange}:/models") for one in volumes), volumes
    assert float(triton["cpus"]) == 3.0
    assert "--start-timeout=700" in triton["command"]
    assert "127.0.0.1:9000:8000" in str(triton["ports"]) or "'9000'" in str(triton["ports"])
    assert triton["build"]["context"] == str(REPOSITORY)
    # On a fresh machine each profile has to build its image.
    for name in ("loadtest", "locust-master", "locust-worker"):
        assert services[name]["build"]["context"] == str(REPOSITORY)
        assert services[name]["build"]["target"] == "loadtest"
    assert triton["image"] == "trimaran/serve-cpu:0.1.0"


@pytest.mark.parametrize("version", VERSIONS)
def test_compose_gets_gpus_as_a_number(repository: Path, tmp_path: Path, version: str) -> None:
    config = deploy(repository, tmp_path / "out", gpus=2, image="registry.example.com/serve-gpu:7")
    triton = compose_config(config.folder, version)["triton"]
    (device,) = triton["deploy"]["resources"]["reservations"]["devices"]
    assert device["count"] == 2  # Compose v1 refuses the text "2"
    assert triton["image"] == "registry.example.com/serve-gpu:7"


def test_without_a_clone_the_image_must_be_there(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "trimaran" / "deploy" / "assets"
    for name in assets.COMPOSE_FILES:
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copyfile
        copy(REPOSITORY / name, installed / name)
    monkeypatch.setattr(assets, "_PLACES", (tmp_path / "site-packages", installed))
    config = deploy(repository, tmp_path / "out")
    said = "\n".join(next_commands(config, size(config)))
    assert "--build" not in said
    assert "docker image inspect trimaran/serve-cpu:0.1.0" in said
    clone = deploy(repository, tmp_path / "built", build_context=REPOSITORY)
    assert "--build" in "\n".join(next_commands(clone, size(clone)))
    assert str(REPOSITORY) in (clone.folder / "compose.yaml").read_text()
    with pytest.raises(DeployError, match=r"build_context is .*no Dockerfile"):
        deploy(repository, tmp_path / "other", build_context=tmp_path)


def test_what_exists_is_not_replaced(repository: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    deploy(repository, mine)  # an empty folder is taken
    with pytest.raises(DeployError, match=r"output is .*exists and is not empty.*--overwrite"):
        deploy(repository, mine)
    (mine / "left").write_text("old")
    deploy(repository, mine, overwrite=True, longest_request=7)
    assert environment(mine)["TRIMARAN_EXIT_SECONDS"] == "7"
    assert not (mine / "left").exists()

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(DeployError, match="did not write"):
        deploy(repository, other, overwrite=True)
    assert (other / "thesis.tex").exists()
    with pytest.raises(DeployError, match="is a file"):
        deploy(repository, other / "thesis.tex", overwrite=True)


def test_a_failure_leaves_the_old_folder(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = deploy(repository, tmp_path / "out")
    before = (config.folder / ".env").read_text()
    with pytest.raises(DeployError, match="TRIMARAN_IMAGE would be"):
        deploy(repository, config.folder, overwrite=True, image="it's")
    assert (config.folder / ".env").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_path_with_a_colon_is_refused(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "a:b")
    with pytest.raises(DeployError, match=r"splits a volume at ':'"):
        deploy(tmp_path / "a:b", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repository": None}, "repository is missing"),
        ({"longest_request": 0}, "longest_request is 0; accepted: at least 1"),
        ({"http_port": 9000, "grafana_port": 9000}, "http_port and grafana_port are both 9000"),
        ({"http_port": 70000}, "http_port is 70000; accepted: 1 to 65535"),
        ({"gpus": -1}, "gpus is -1"),
        ({"up": True, "down": True}, "up and down are both true"),
        ({"target": "helm", "up": True}, "up is true, but target is 'helm'"),
        ({"target": "helm", "http_port": 9000}, "http_port is 9000, but target is 'helm'"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeployConfig(**{"target": "compose", "repository": Path("models"), **options})


def test_what_would_go_wrong_here_is_warned_of(
    repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = DeployConfig("compose", repository, cpus=1, versions=10_000)
    said = "\n".join(warnings(config, size(config)))
    assert "cpus is 1, but 1 instance(s) of 2 threads" in said
    assert re.search(r"may come to need \d+ GiB; here are [\d.]+ of [\d.]+ GiB available", said)
    many = DeployConfig("compose", repository, cpus=100_000)
    assert "the engine refuses more" in "\n".join(warnings(many, size(many)))

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        taken = DeployConfig("compose", repository, http_port=port)
        assert f"http_port is {port}, which is in use" in "\n".join(warnings(taken, size(taken)))
    assert f"http_port is {port}" not in "\n".join(warnings(taken, size(taken)))

    closed = tmp_path / "models"
    shutil.copytree(repository, closed)
    assert "cannot be read by others" not in "\n".join(
        warnings(DeployConfig("compose", closed), size(config))
    )
    (closed / "llm" / "1" / "model.py").chmod(0o600)
    found = warnings(DeployConfig("helm", closed), size(config))
    assert any("model.py cannot be read by others" in one and "chmod -R o+rX" in one for one in found)
