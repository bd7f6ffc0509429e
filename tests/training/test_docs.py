"""``docs/training.md``: its commands run, one after the other, and do what the page says of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import training.run as run
from checkpoints.manifest import read_manifest
from training.metrics import read_metrics
from trimaran.cli import main
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
LINES = re.findall(r"^(?:\$ )?(trimaran (?:train|merge|export) .*?)( &)?$", PAGE, re.MULTILINE)
"""(command, what puts it into the background) of each line, in the order of the page."""

SPOT = re.search(r"--output (out/spot) &\n(until .*)\nkill -TERM \$!\n", PAGE)
"""The run that is ended, and how its first row of metrics is waited for: before, SIGTERM kills Python."""

# The recipe's own rows and settings, but a tiny model, four steps, and nothing dropped by chance.
OVERRIDES = (
    "--data.max-length 256 --max-steps 4 --log-steps 1 --dtype fp32 --device cpu --threads 1 --lora.dropout 0"
)


@pytest.mark.parametrize("line", [line for line, _ in LINES])
def test_a_command_is_one_we_take(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    _, command, *arguments = shlex.split(line)
    parse_command(COMMANDS[command], arguments)


class Evict(TrainerCallback):
    """Sends SIGTERM while step 2 is trained."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def evicted(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that is ended by SIGTERM and says so by its exit code."""
    build = run.build_trainer

    def with_eviction(*args: Any, **kwargs: Any) -> Any:
        return build(*args, **{**kwargs, "callbacks": [Evict(), *kwargs["callbacks"]]})

    with monkeypatch.context() as patch:
        patch.setattr(run, "build_trainer", with_eviction)
        assert main(arguments) == 143


def losses(name: str) -> list[float]:
    return [row["loss"] for row in read_metrics(Path("out") / name / "metrics.jsonl")]


def test_the_walk_through(
    tiny_llama_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    deepseek = tmp_path / "deepseek-ai" / "deepseek-llm-7b-chat"  # as the recipe names it, on the hub
    deepseek.mkdir(parents=True)
    shutil.copyfile(ROOT / "tests/training/model_configs/deepseek-7b.json", deepseek / "config.json")
    (deepseek / "model.safetensors").touch()  # a dry run reads no weights
    monkeypatch.chdir(tmp_path)
    for line, background in LINES:
        arguments = shlex.split(line)[1:]
        if "--dry-run" in arguments:
            assert main([*arguments, "--dtype", "bf16", "--device", "cpu"]) == 0
            continue
        if arguments[0] == "train":
            arguments += OVERRIDES.split()
            if "--model" not in arguments:
                arguments += ["--model", str(tiny_llama_dir)]
        if background:
            evicted(arguments, monkeypatch)
            assert SPOT is not None
            assert [path.name for path in Path(SPOT[1], "checkpoints").iterdir()] == ["checkpoint-2"]
            subprocess.run(["bash", "-c", SPOT[2]], check=True, timeout=60)  # what it waits for is there
        else:
            assert main(arguments) == 0, line

    # What the page shows of a dry run, but for this machine's memory.
    (shown,) = re.findall(r"\$ trimaran train .* --dry-run\n(.*?)\n```", PAGE, re.DOTALL)
    printed = capsys.readouterr().out
    assert all(one in printed for one in shown.splitlines() if not one.startswith(("CPU", "it fits")))
    # The same step in less memory, and a run that was cut off.
    plain = losses("smollm2-135m-lora")
    assert len(plain) == 4
    assert losses("spot") == plain
    for name in ("less-memory", "halved"):
        assert losses(name) == pytest.approx(plain, rel=1e-4)
    # Continual learning goes on where the first task ended, and pays for leaving it.
    for name in ("b", "b-full"):
        rows = read_metrics(Path("out") / name / "metrics.jsonl")
        assert rows[0]["loss"] < plain[0]  # the same rows, which the first run has learned from
        assert rows[-1]["ewc_penalty"] > 0
    assert read_manifest(Path("out/a-full/checkpoint")).method == "full"
    assert len(list(Path("out/models").rglob("adapter_model.safetensors"))) == 1


def test_there_are_commands() -> None:
    assert len(LINES) >= 14


def test_the_tests_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:\w+/)?test_\w+)`", PAGE))
    assert len(named) > 10
    for name in named:
        assert list((ROOT / "tests").rglob(f"{name}.py")), name
