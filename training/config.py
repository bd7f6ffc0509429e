"""Settings of ``trimaran train`` and ``trimaran merge``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from checkpoints.errors import ConfigError
from training.data.config import DataConfig
from training.ewc.config import EwcSettings
from training.methods.bottleneck.config import BottleneckSettings
from training.methods.full.config import FullSettings
from training.methods.lora.config import LoraSettings
from training.methods.registry import method_traits, resolve_method
from training.moe.config import MoeSettings

__all__ = ["MergeConfig", "TrainConfig"]


@dataclass
class TrainConfig:
    """Fine-tune a model on rows; the result is OUTPUT/adapter, or OUTPUT/checkpoint for method full."""

    model: str
    """Base model: a hub id, a checkpoint directory, a GGUF file, or a .pt/.bin file and its config.json."""

    data: DataConfig
    """Training and evaluation rows."""

    output: Path
    """Run directory: adapter/ or checkpoint/ (the result), checkpoints/ (to resume from), data.json,
    metrics.jsonl, loss.png."""

    method: str = "lora"
    """Fine-tuning method: lora, qlora (lora on an NF4 base), bottleneck or full."""

    lora: LoraSettings = field(default_factory=LoraSettings)
    """Settings of the lora method."""

    bottleneck: BottleneckSettings = field(default_factory=BottleneckSettings)
    """Settings of the bottleneck method."""

    full: FullSettings = field(default_factory=FullSettings)
    """Settings of the full method."""

    moe: MoeSettings = field(default_factory=MoeSettings)
    """Routers and experts of a mixture of experts."""

    adapter: Path | None = None
    """Adapter of an earlier run to go on from, of the same base, method and settings; full goes on from
    model: OUTPUT/checkpoint."""

    ewc: EwcSettings = field(default_factory=EwcSettings)
    """Continual learning: keep what an earlier run learned."""

    base_quantization: Literal["nf4"] | None = None
    """Quantize the frozen base while training: nf4 needs about a quarter of the memory of bf16."""

    double_quantization: bool = False
    """Quantize the NF4 scales as well: 0.4 bits per parameter less."""

    revision: str | None = None
    """Revision of a base from the hub: a branch, tag or commit."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for a source you trust."""

    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of the frozen base and the computation; auto is bf16 where it is fast, else fp32. fp16, with
    a scaled loss, is for GPUs without bf16."""

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """How attention is computed: auto is PyTorch's SDPA where the model has it; flash_attention_2 needs a
    CUDA GPU and the flash-attn package; eager keeps all scores, which takes memory."""

    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """AdamW with its states in 32 bits, in 8, or paged to the machine's memory where the GPU's runs out;
    the last three need a CUDA GPU."""

    learning_rate: float | None = None
    """Highest learning rate, reached after the warm-up; none is the method's own: 2e-4 for lora, 3e-4 for
    bottleneck, 1e-5 for full."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up; cosine and linear end at 0."""

    warmup_ratio: float = 0.0
    """Share of the steps over which the learning rate rises from 0, 0 to below 1."""

    warmup_steps: int | None = None
    """Number of warm-up steps, instead of warmup_ratio."""

    epochs: float = 3.0
    """Passes over the training rows."""

    max_steps: int | None = None
    """Stop after this many optimizer steps, whatever epochs says."""

    batch_size: int = 8
    """Rows per forward pass and device."""

    gradient_accumulation: int = 1
    """Forward passes per optimizer step; the loss is the mean over all their trained tokens."""

    max_grad_norm: float = 1.0
    """Gradients longer than this are scaled down to it; 0 turns clipping off."""

    weight_decay: float = 0.0
    """AdamW's weight decay."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    retry_out_of_memory: bool = False
    """When memory runs out in a step, compute the same rows again, half as many at a time, and go on so."""

    fused: bool = True
    """Compute LoRA layers, gated MLPs and RMS norms by functions that keep less for the backward pass and are
    faster, and on a CPU the attention of packed rows one by one; false is the modelling code step by step."""

    kernels: Literal["own", "liger"] = "own"
    """own is fused and a loss in chunks; liger puts Liger's kernels in their place (a CUDA GPU and the liger
    extra)."""

    log_steps: int = 1
    """Write a line of metrics every so many steps."""

    eval_steps: int | None = None
    """Evaluate every so many steps; none is at the end only."""

    save_steps: int = 100
    """Save the state to resume from every so many steps, and at the end."""

    save_total_limit: int = 2
    """How many of these saved states to keep."""

    resume: Literal["auto", "never"] = "auto"
    """auto continues from the last complete saved state in OUTPUT; never starts over and removes them."""

    overwrite: bool = False
    """Replace a finished run in OUTPUT."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto is the GPU where there is one."""

    threads: int | None = None
    """CPU threads for PyTorch; none is PyTorch's own choice."""

    seed: int = 0
    """Seed of the initial weights, the order of rows, dropout and the evaluation split."""

    tensorboard: bool = False
    """Write OUTPUT/tensorboard as well (needs the tensorboard extra)."""

    dry_run: bool = False
    """Print what would be trained and the memory it needs; train nothing, write nothing."""

    def __post_init__(self) -> None:
        self.method, implied = resolve_method(self.method)
        if implied == "nf4":
            self.base_quantization = "nf4"
        traits = method_traits(self.method)
        if self.learning_rate is None:
            self.learning_rate = traits.learning_rate
        self.output = Path(self.output)
        self._check_earlier_run()
        positive = {
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "eval_steps": self.eval_steps,
            "gradient_accumulation": self.gradient_accumulation,
            "learning_rate": self.learning_rate,
            "log_steps": self.log_steps,
            "max_steps": self.max_steps,
            "save_steps": self.save_steps,
            "save_total_limit": self.save_total_limit,
            "threads": self.threads,
        }
        for name, value in positive.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} = {value}: must be above 0")
        not_negative = {
            "max_grad_norm": self.max_grad_norm,
            "seed": self.seed,
            "warmup_steps": self.warmup_steps,
            "weight_decay": self.weight_decay,
        }
        for name, value in not_negative.items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} = {value}: must be 0 or more")
        if self.learning_rate > 1:
            raise ConfigError(f"learning_rate = {self.learning_rate}: must be at most 1")
        if not 0 <= self.warmup_ratio < 1:
            raise ConfigError(f"warmup_ratio = {self.warmup_ratio}: must be from 0 to below 1")
        if self.warmup_ratio and self.warmup_steps is not None:
            raise ConfigError(
                f"warmup_ratio = {self.warmup_ratio} and warmup_steps = {self.warmup_steps} clash: "
                "give one of them"
            )
        if self.base_quantization is not None and not traits.takes_quantized_base:
            raise ConfigError(
                f"base_quantization = {self.base_quantization} and method = {self.method} clash: 4-bit "
                "weights cannot be trained; use method = qlora, or leave base_quantization out"
            )
        if self.method == "bottleneck" and self.moe.router in ("trainable", "warmup"):
            raise ConfigError(
                f"moe.router = {self.moe.router} and method = bottleneck clash: it leaves the base as it is; "
                "train routers with method = lora or full"
            )
        if self.method == "full" and self.full.weights == "bf16" and self.dtype in ("fp16", "fp32"):
            raise ConfigError(
                f"full.weights = bf16 and dtype = {self.dtype} clash: weights in bf16 compute in bf16"
            )
        if self.dtype == "fp16" and (self.ewc.save or self.ewc.from_run is not None):
            raise ConfigError(
                "ewc and dtype = fp16 clash: squares of gradients are too small for fp16; use bf16 or fp32"
            )
        if self.double_quantization and self.base_quantization is None:
            raise ConfigError("double_quantization needs base_quantization = nf4 (or method = qlora)")

    def _check_earlier_run(self) -> None:
        if self.adapter is not None:
            self.adapter = Path(self.adapter)
            if method_traits(self.method).result == "checkpoint":
                raise ConfigError(
                    f"adapter = {self.adapter} and method = {self.method} clash: it trains the model itself; "
                    "give the checkpoint to go on from as model"
                )
        # Starting clears OUTPUT.
        output = self.output.resolve()
        for name, path in (("adapter", self.adapter), ("ewc.from_run", self.ewc.from_run)):
            if path is not None and path.resolve().is_relative_to(output):
                raise ConfigError(
                    f"{name} = {path} lies in output = {self.output}, which this run would overwrite; choose "
                    "another output"
                )


@dataclass
class MergeConfig:
    """Merge an adapter into its base; the result is a checkpoint that loads without PEFT."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("adapter",)

    adapter: Path
    """Adapter directory, as trimaran train writes it."""

    output: Path
    """Directory to write the merged checkpoint to."""

    dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Precision of the merged weights; the merge itself is done in fp32."""

    merge_base: Literal["original", "dequantized"] = "original"
    """For an adapter trained on NF4: merge into the original weights or into the dequantized NF4 weights."""

    base: str | None = None
    """Where the base is now, if it moved since training; its weights must be the same files."""

    calibration: Path | None = None
    """JSONL to measure fidelity on; none is the packaged set."""

    fidelity: bool = True
    """Compare the merged checkpoint with base + adapter and put the figures in the manifest."""

    trust_remote_code: bool = False
    """Run Python code that comes with the base. Only for a source you trust."""

    overwrite: bool = False
    """Replace a checkpoint that exists at OUTPUT."""

    def __post_init__(self) -> None:
        self.adapter = Path(self.adapter)
        self.output = Path(self.output)
