"""The wheel alone, installed in an environment of its own, exports and serves from outside the clone.

The environment takes third parties from the one the tests run in (by a path line, which leaves that one's
editable install of Trimaran out); our packages can come from the wheel only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from serving.cache import cache_directory
from tests.serving.endpoint import post, sealed_llama
from trimaran.deploy.assets import CHART, COMPOSE_FILES

pytestmark = [pytest.mark.slow, pytest.mark.triton]

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = ("trimaran", "training", "checkpoints", "serving", "loadtests", "model_repository")


@dataclass(frozen=True)
class CleanEnvironment:
    """A virtual environment with the wheel in it, and an empty folder to work in."""

    prefix: Path
    folder: Path
    variables: dict[str, str]

    def run(self, *command: str | Path) -> str:
        """Run a program of the environment and return what it printed."""
        done = subprocess.run(
            [self.prefix / "bin" / command[0], *command[1:]],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    # A copy, so that the build neither sees what git ignores nor writes into the clone.
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "compose.yaml", "compose.gpu.yaml"):
        shutil.copy(REPOSITORY / name, source)
    for package in (*OURS, "recipes", "deploy"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(REPOSITORY / package, source / package, ignore=ignored)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(target),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("trimaran-*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    folder = tmp_path_factory.mktemp("clean")
    prefix = folder / "venv"
    venv.create(prefix, with_pip=False, symlinks=True)
    (packages,) = (prefix / "lib").glob("python*/site-packages")
    (packages / "third_parties.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    cache = folder / "cache"
    cache.mkdir()
    for server in cache_directory().glob("triton-*"):  # 55 MB less to download; absent on a first run
        if server.is_dir():
            (cache / server.name).symlink_to(server)
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    variables = {key: value for key, value in os.environ.items() if key not in ours}
    variables |= {"TRIMARAN_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    python = prefix / "bin" / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        wheel,
    ]
    subprocess.run(install, check=True, env=variables, cwd=folder, timeout=180)
    return CleanEnvironment(prefix, folder, variables)


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for package in (*OURS, "recipes"):
        for path in (REPOSITORY / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(REPOSITORY)) in shipped
    assert not any(name.startswith(("tests/", "docs/")) for name in shipped)


def test_what_deploy_copies_is_in_the_wheel(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for name in (*COMPOSE_FILES, CHART):
        here = REPOSITORY / name
        for path in here.rglob("*") if here.is_dir() else [here]:
            if path.is_file():
                assert f"trimaran/deploy/assets/{path.relative_to(REPOSITORY)}" in shipped
    assert not any(name.startswith("trimaran/deploy/assets/deploy/grafana/build") for name in shipped)


def test_deploy_outside_a_clone(clean: CleanEnvironment, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    checkpoint = sealed_llama(clean.folder / "to-deploy", tiny_tokenizer)
    clean.run("trimaran", "export", checkpoint, "--repository", "deployed", "--engine", "torch")
    said = clean.run("trimaran", "deploy", "compose", "--repository", "deployed")
    assert "docker image inspect trimaran/serve-cpu:0.1.0" in said  # no clone to build it from
    assert (clean.folder / "deploy-compose" / "deploy" / "grafana" / "dashboards" / "trimaran.json").is_file()
    assert str(REPOSITORY) not in (clean.folder / "deploy-compose" / "compose.yaml").read_text()
    clean.run("trimaran", "deploy", "helm", "--repository", "deployed")
    assert (clean.folder / "deploy-helm" / "trimaran" / "templates" / "tests" / "generate.yaml").is_file()


def test_packages_come_from_the_wheel(clean: CleanEnvironment) -> None:
    code = f"import {', '.join(OURS)}; print(*(m.__file__ for m in ({', '.join(OURS)})), sep='\\n')"
    for file in clean.run("python", "-c", code).splitlines():
        assert Path(file).is_relative_to(clean.prefix)


def test_commands_that_need_nothing_else(clean: CleanEnvironment) -> None:
    assert "quantize" in clean.run("trimaran", "--help")
    assert json.loads(clean.run("trimaran", "doctor", "--json"))["healthy"] is True
    assert "--lora.rank" in clean.run("trimaran", "train", "--help")


def test_export_serve_and_ask(clean: CleanEnvironment, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    checkpoint = sealed_llama(clean.folder / "checkpoint", tiny_tokenizer)
    assert "checkpoint" in clean.run("trimaran", "inspect", checkpoint, "--verify")
    clean.run("trimaran", "export", checkpoint, "--repository", "models", "--threads", "1")
    assert (clean.folder / "models" / "llm" / "1" / "model.py").is_file()

    command = [clean.prefix / "bin" / "trimaran", "serve", "models"]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--threads", "1"]
    server = subprocess.Popen(
        command, cwd=clean.folder, env=clean.variables, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    with server, server.stdout:
        try:
            said = {}
            for line in server.stdout:
                said |= dict([line.split(maxsplit=1)]) if len(line.split()) > 1 else {}
                if line.startswith("Ctrl-C"):
                    break
            assert {"HTTP", "gRPC"} <= said.keys(), said
            url = f"{said['HTTP'].strip()}/v2/models/llm/generate"
            status, answer = post(url, {"text_input": "The sea", "max_tokens": 4, "ignore_eos": True})
            assert (status, len(answer["output_ids"])) == (200, 4)
            code = (
                "import sys; from serving.client import TritonClient\n"
                "with TritonClient(sys.argv[1]) as client:\n"
                "    print(*client.generate(text='The sea', max_tokens=4, ignore_eos=True).output_ids)"
            )
            grpc = clean.run("python", "-c", code, said["gRPC"].strip())
            assert [int(token) for token in grpc.split()] == answer["output_ids"]
        finally:
            server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    assert server.returncode == 0
