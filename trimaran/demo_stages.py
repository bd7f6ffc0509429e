"""The demo's stages. Each finds its artefact or makes it from the artefact of the stage before.

An artefact counts as found when its manifest names the very checkpoint it would be made from, so a
stage that runs again makes the ones after it run again too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.atomic import atomic_directory, write_text_atomically
from checkpoints.errors import ManifestError
from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import manifest_sha256, read_manifest, seal
from checkpoints.quantize import QuantizeConfig, quantize
from checkpoints.quiet import quiet_transformers
from loadtests.config import LoadTestConfig
from loadtests.run import run_load_test
from serving.config import ExportConfig
from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
from serving.export import export
from serving.repository import find_versions
from serving.triton_server import TritonServer
from training.base import resolve_dtype
from training.config import MergeConfig, TrainConfig
from training.data.config import DataConfig
from training.merge import merge
from training.methods.lora.config import LoraSettings
from training.run import train
from trimaran.demo_data import DemoData, find_demo_model
from trimaran.demo_loss import completion_loss
from trimaran.greedy_check import GreedyCheck, check_greedy

__all__ = [
    "Endpoint",
    "make_adapter",
    "make_base",
    "make_merged",
    "make_nf4",
    "make_repository",
    "measure_endpoint",
    "measure_losses",
]

MAX_LENGTH = 512
MAX_CONTEXT = 2048
GREEDY_TOKENS = 24
GREEDY_PROMPTS = (
    "Tom has 3 boxes with 12 apples each and gives away 7 apples. How many are left?",
    "What is the capital of France?",
    "Write a Python function that reverses a string.",
    "用一句话介绍一下长城。",
)
REPORT, CHECK = "report.html", "greedy.json"


@dataclass(frozen=True)
class Endpoint:
    """What was measured at one endpoint."""

    name: str
    """Name of the model in Triton."""

    engine: str
    """Engine and precision of its weights."""

    results: Mapping[str, Any]
    """``results.json`` of the load test."""

    greedy: GreedyCheck
    """Whether it serves the checkpoint's text."""

    report: Path
    """The load test's report."""

    @property
    def passed(self) -> bool:
        """Whether the text is right and the load test's verdict good."""
        return self.greedy.passed and bool(self.results["verdict"]["passed"])


def make_base(target: Path) -> Path:
    """The packaged GGUF as a safetensors checkpoint with a manifest."""
    if not _is_sealed(target):
        source = find_demo_model()
        model, tokenizer = load_model(source, dtype="bf16"), load_tokenizer(source)
        with atomic_directory(target) as directory, quiet_transformers():
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            seal(directory, base_manifest(source, model, tokenizer))
    return target


def make_adapter(target: Path, base: Path, data: DemoData, steps: int) -> Path:
    """A LoRA adapter in ``target/adapter``; continues a run that was cut."""
    adapter = target / "adapter"
    if _made_from(adapter, base):
        return adapter
    return train(
        TrainConfig(
            model=str(base),
            data=DataConfig(train=data.train, eval=data.evaluation, max_length=MAX_LENGTH),
            output=target,
            lora=LoraSettings(rank=16, alpha=32),
            learning_rate=4e-4,
            warmup_ratio=0.1,
            batch_size=4,
            epochs=100,
            max_steps=steps,
            save_steps=8,
            overwrite=True,
        )
    )


def make_merged(target: Path, adapter: Path) -> Path:
    """Adapter and base as one checkpoint, with its fidelity in the manifest.

    In bf16, or in fp32 on a CPU without bf16 instructions, which would serve bf16 many times slower.
    """
    if not _made_from(target, adapter):
        dtype = resolve_dtype("auto", "auto")
        merge(MergeConfig(adapter=adapter, output=target, dtype=dtype, overwrite=True))
    return target


def make_nf4(target: Path, merged: Path) -> Path:
    """The merged checkpoint in 4-bit NF4, with its fidelity in the manifest."""
    if not _made_from(target, merged):
        quantize(QuantizeConfig(checkpoint=merged, output=target, overwrite=True))
    return target


def measure_losses(target: Path, checkpoints: Sequence[Path], data: DemoData) -> dict[str, float]:
    """Loss of each checkpoint on the held-out rows, by manifest hash."""
    losses: dict[str, float] = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    wanted = {manifest_sha256(checkpoint): checkpoint for checkpoint in checkpoints}
    missing = {name: checkpoint for name, checkpoint in wanted.items() if name not in losses}
    for name, checkpoint in missing.items():
        losses[name] = completion_loss(checkpoint, data.evaluation, max_length=MAX_LENGTH)
    if missing:
        write_text_atomically(target, json.dumps(losses, indent=2) + "\n")
    return losses


def make_repository(target: Path, served: Mapping[str, Path]) -> Path:
    """A model repository with the latest version of each model made from its checkpoint."""
    for name, checkpoint in served.items():
        versions = find_versions(target / name)
        latest = target / name / str(versions[-1]) if versions else None
        if latest is None or not _holds(latest / "checkpoint", checkpoint):
            export(ExportConfig(checkpoint=checkpoint, repository=target, name=name, max_context=MAX_CONTEXT))
    return target


def measure_endpoint(
    target: Path,
    repository: Path,
    name: str,
    checkpoint: Path,
    data: DemoData,
    users: int,
    duration: str,
) -> Endpoint:
    """Serve one model, hold its text against ``generate``, and load it with Locust."""
    check = target / CHECK
    if not check.is_file() or json.loads(check.read_text())["checkpoint"] != manifest_sha256(checkpoint):
        with TritonServer(repository, models=[name]) as server:
            greedy = check_greedy(checkpoint, server.grpc_url, name, GREEDY_PROMPTS, GREEDY_TOKENS)
            run_load_test(
                LoadTestConfig(
                    url=server.http_url,
                    model=name,
                    users=users,
                    duration=duration,
                    prompts=data.prompts,
                    metrics_url=server.metrics_url,
                    output=target,
                    overwrite=True,
                )
            )
        record = {"checkpoint": manifest_sha256(checkpoint), **vars(greedy)}
        write_text_atomically(check, json.dumps(record) + "\n")
    record = json.loads(check.read_text(encoding="utf-8"))
    del record["checkpoint"]
    results = json.loads((target / "results.json").read_text(encoding="utf-8"))
    return Endpoint(name, _engine(repository, name), results, GreedyCheck(**record), target / REPORT)


def _is_sealed(directory: Path) -> bool:
    try:
        read_manifest(directory)
    except ManifestError:
        return False
    return True


def _made_from(directory: Path, parent: Path) -> bool:
    """Whether ``directory`` is a sealed checkpoint whose parent is the one at ``parent``."""
    if not _is_sealed(directory):
        return False
    named = read_manifest(directory).parent
    return named is not None and named.manifest_sha256 == manifest_sha256(parent)


def _holds(directory: Path, checkpoint: Path) -> bool:
    """Whether an exported version serves ``checkpoint``, as it is or converted for an engine."""
    if _is_sealed(directory) and manifest_sha256(directory) == manifest_sha256(checkpoint):
        return True
    return _made_from(directory, checkpoint)


def _engine(repository: Path, name: str) -> str:
    """Engine and weights of the version that Triton loads, for the table."""
    version = repository / name / str(find_versions(repository / name)[-1])
    engine = EngineConfig.read(version / ENGINE_CONFIG_NAME)
    return f"{engine.engine} {engine.weights}"
