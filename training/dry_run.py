"""``trimaran train --dry-run``: what a run would train and the memory it takes, from the base's config alone.

The model is built on the meta device: names and shapes, no weights. Nothing is trained, nothing is written.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from checkpoints.building import empty_model
from checkpoints.nf4 import check_quantizable
from training.base import check_base_precision, is_nf4, resolve_dtype, resolve_source
from training.config import TrainConfig
from training.machine_memory import Memory, find_memory
from training.memory_estimate import MemoryEstimate, estimate_memory
from training.optimizers import OPTIMIZERS
from training.precision import base_dtype
from training.run import DEFAULT_MAX_LENGTH, check_source

__all__ = ["dry_run", "row_length"]

_GIB = 1024**3


def dry_run(config: TrainConfig) -> str:
    """Return the table.

    Raises:
        ConfigError: a setting does not fit the model.
        CheckpointError: the base's config cannot be read, or NF4 cannot pack the base.
    """
    source = resolve_source(config.model)
    check_source(config, source)
    config = replace(config, dtype=resolve_dtype(config.dtype, config.device))
    base = empty_model(source, trust_remote_code=config.trust_remote_code, revision=config.revision)
    check_base_precision(source, base.config)
    if is_nf4(source):
        config = replace(config, base_quantization="nf4")
    elif config.base_quantization == "nf4":
        check_quantizable(base)
    architecture, length = type(base).__name__, row_length(config, base)
    estimate = estimate_memory(config, base, length)
    return render(config, architecture, length, estimate, find_memory(config.device))


def row_length(config: TrainConfig, base: Any) -> int:
    """Return the most tokens a row can have."""
    context = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    return config.data.max_length or min(DEFAULT_MAX_LENGTH, context or DEFAULT_MAX_LENGTH)


def render(
    config: TrainConfig, architecture: str, length: int, estimate: MemoryEstimate, memory: Memory
) -> str:
    """Return the estimate as a table, and what follows from it."""
    share = 100 * estimate.trainable / estimate.parameters
    frozen = config.base_quantization or base_dtype(config)
    base = "weights" if config.method == "full" else "base"
    double = ", double quantization" if config.double_quantization else ""
    again = ", gradient checkpointing" if config.gradient_checkpointing else ""
    rows = f"{config.batch_size} rows of {length:,} tokens{again}"
    lines = [
        f"model         {config.model}: {architecture}, {estimate.parameters:,} parameters",
        f"method        {config.method}, {base} in {frozen}{double}, computation in {config.dtype}",
        f"trainable     {estimate.trainable:,} parameters, {share:.2f}% of the model's",
        "",
        "memory        GiB (an estimate, without the libraries' own: about 1)",
        f"weights       {_gib(estimate.weights)}",
        f"gradients     {_gib(estimate.gradients)}",
        f"optimizer     {_gib(estimate.optimizer)}  {config.optimizer}",
        f"activations   {_gib(estimate.activations)}  {rows}",
        f"total         {_gib(estimate.total)}",
        f"{memory.name:<13} {_gib(memory.available)}  available of {memory.total / _GIB:.1f}",
        "",
    ]
    if estimate.total <= memory.available:
        lines.append("it fits")
    else:
        lines.append(f"it does not fit: {'; '.join(_remedies(config, estimate))}")
    lines += _not_counted(config)
    if OPTIMIZERS[config.optimizer].needs_gpu and memory.name == "CPU":
        lines.append(f"optimizer = {config.optimizer} needs a CUDA GPU; there is none here")
    return "\n".join(lines)


def _not_counted(config: TrainConfig) -> list[str]:
    """Return what takes memory that the estimate does not know."""
    found = []
    if config.method == "lora" and config.lora.dora:
        found.append(
            "lora.dora = true: the norm of a layer's weights takes a few copies of them in fp32 while it is "
            "computed, which is not counted"
        )
    if config.attention == "eager":
        found.append("attention = eager: the scores of all pairs of tokens are kept, which is not counted")
    if config.kernels == "liger":
        found.append("kernels = liger: the table is of our own functions, which keep other activations")
    return found


def _remedies(config: TrainConfig, estimate: MemoryEstimate) -> list[str]:
    """Return what takes less, the largest part first."""
    found = []
    if not config.gradient_checkpointing:
        found.append("--gradient-checkpointing recomputes activations")
    if config.batch_size > 1:
        found.append("a smaller --batch-size with --gradient-accumulation trains the same")
    if config.method == "full":
        found.append("--method lora trains a small part")
    elif config.base_quantization is None:
        found.append("--base-quantization nf4 packs the base")
    states = estimate.weights + estimate.gradients + estimate.optimizer
    if states < estimate.activations or len(found) < 2:
        found.append("a smaller --data.max-length cuts rows")
    return found


def _gib(size: int) -> str:
    return f"{size / _GIB:>8.2f}"
