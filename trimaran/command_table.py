"""Every command of ``trimaran``: its one-line help, its config class, its examples.

A name of two words (``loadtest sweep``) is a command nested in another, which stays a command of its own.
A command is a row here, a config dataclass in its room, and an adapter in ``commands``. Nothing
is imported until the command is chosen, so this table costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["COMMANDS", "Command", "find_command", "nested_commands"]


@dataclass(frozen=True)
class Command:
    """One row of the command tree."""

    name: str
    """What the user types."""
    summary: str
    """One line, shown by ``trimaran --help``."""
    config: str
    """``module:Class`` of the config dataclass."""
    extras: str
    """What `pip install 'trimaran[...]'` needs to name for it."""
    examples: tuple[str, ...]
    """Command lines to copy, shown by ``trimaran NAME --help``."""

    @property
    def function(self) -> str:
        """Name of its adapter in ``commands``."""
        return self.name.replace("-", "_").replace(" ", "_")

    def config_class(self) -> type:
        """Import the config module of this command (and nothing heavier)."""
        module, _, name = self.config.partition(":")
        loaded: type = getattr(importlib.import_module(module), name)
        return loaded


COMMANDS: dict[str, Command] = {
    row.name: row
    for row in (
        Command(
            "demo",
            "run every stage on a small real model and print one table of results",
            "trimaran.pipeline:DemoConfig",
            "train,serve,loadtest",
            ("trimaran demo",),
        ),
        Command(
            "doctor",
            "say what this machine can do and what to install",
            "trimaran.doctor:DoctorConfig",
            "train",
            ("trimaran doctor", "trimaran doctor --json"),
        ),
        Command(
            "inspect",
            "print what a checkpoint is: lineage, sizes, bytes per parameter, metrics",
            "checkpoints.inspect:InspectConfig",
            "train",
            ("trimaran inspect out/merged", "trimaran inspect out/merged --verify"),
        ),
        Command(
            "clean-data",
            "drop rows that are noise, duplicates or part of an evaluation set, and report them",
            "training.data.cleaning.config:CleanDataConfig",
            "train,data",
            (
                "trimaran clean-data rows.jsonl --output out/clean",
                "trimaran clean-data rows.jsonl --output out/clean --language en --scripts Latin "
                "--evaluation gsm8k.jsonl",
            ),
        ),
        Command(
            "train",
            "fine-tune a base model on rows of data; writes an adapter, or a whole checkpoint",
            "training.config:TrainConfig",
            "train",
            (
                "trimaran train --config recipes/smollm2-135m/lora.yaml",
                "trimaran train --config recipes/smollm2-135m/lora.yaml --data.train my.jsonl "
                "--output out/mine",
                "trimaran train --model HuggingFaceTB/SmolLM2-135M-Instruct --data.train a.jsonl,b.jsonl "
                "--output out/mine --lora.rank 8 --lora.target-modules q_proj,v_proj",
                "trimaran train --config recipes/deepseek-7b/full.yaml --dry-run",
            ),
        ),
        Command(
            "merge",
            "fold an adapter into its base; writes a plain 16 or 32 bit checkpoint",
            "training.config:MergeConfig",
            "train",
            ("trimaran merge out/mine/adapter --output out/merged",),
        ),
        Command(
            "quantize",
            "write a checkpoint in 4-bit NF4 and measure what that costs",
            "checkpoints.quantize:QuantizeConfig",
            "train",
            ("trimaran quantize out/merged --output out/nf4",),
        ),
        Command(
            "prune-experts",
            "keep the most used experts of a mixture, drop the others, and measure what that costs",
            "checkpoints.prune_experts:PruneExpertsConfig",
            "train",
            ("trimaran prune-experts out/moe --num-experts 32 --output out/moe-32",),
        ),
        Command(
            "export",
            "add a checkpoint to a Triton model repository as its next version",
            "serving.config:ExportConfig",
            "serve",
            ("trimaran export out/merged --repository out/models --name llm",),
        ),
        Command(
            "serve",
            "start Triton on a model repository and wait until the model is ready",
            "serving.config:ServeConfig",
            "serve",
            ("trimaran serve out/models", "trimaran serve out/models --http-port 9000 --grpc-port 0"),
        ),
        Command(
            "load",
            "swap a running server to a model's newest version, or back to an older one",
            "serving.config:LoadConfig",
            "serve",
            ("trimaran load llm", "trimaran load llm --version 1 --admin-key-file admin.key"),
        ),
        Command(
            "chat",
            "talk to an endpoint",
            "serving.config:ChatConfig",
            "serve",
            ("trimaran chat 127.0.0.1:8001",),
        ),
        Command(
            "loadtest",
            "load an endpoint with Locust and judge latency, throughput and failures",
            "loadtests.config:LoadTestConfig",
            "loadtest",
            (
                "trimaran loadtest --url http://127.0.0.1:8000 --users 16 --duration 30s",
                "trimaran loadtest --users 16 --duration 2m --max-failure-rate 0 --max-ttft-p95 800ms",
            ),
        ),
        Command(
            "loadtest history",
            "list the load tests of a folder with figures and verdicts, and draw their trends",
            "loadtests.history.config:HistoryConfig",
            "loadtest",
            (
                "trimaran loadtest history",
                "trimaran loadtest history out/nightly --last 30 --page out/history.html --overwrite",
            ),
        ),
        Command(
            "loadtest sweep",
            "find the highest rate or concurrency at which an endpoint meets its limits",
            "loadtests.sweep.config:SweepConfig",
            "loadtest",
            (
                "trimaran loadtest sweep --max-ttft-p95 500ms --min-rate 8",
                "trimaran loadtest sweep --over concurrency --max-itl-p99 100ms --point-duration 30s",
            ),
        ),
        Command(
            "deploy",
            "write settings for docker compose or the Helm chart, sized for a model",
            "trimaran.deploy.config:DeployConfig",
            "serve",
            (
                "trimaran deploy compose --repository out/models --up",
                "trimaran deploy compose --down",
                "trimaran deploy helm --repository out/models --image registry.example.com/trimaran:0.1.0",
            ),
        ),
    )
}


def find_command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Return the command that ``words`` begin with, and the words that are left for it.

    Raises:
        KeyError: the first word is no command.
    """
    pair = " ".join(words[:2])
    if len(words) > 1 and pair in COMMANDS:
        return COMMANDS[pair], list(words[2:])
    return COMMANDS[words[0]], list(words[1:])


def nested_commands(name: str) -> list[Command]:
    """Return the commands that are nested in the command ``name``."""
    return [row for row in COMMANDS.values() if row.name.startswith(f"{name} ")]
