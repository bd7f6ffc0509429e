"""``trimaran prune-experts``: a mixture of experts -> the same with fewer, and what that cost.

Which experts go is measured: each layer keeps those that its router chose most often on a calibration set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from checkpoints.errors import ConfigError, UnsupportedCheckpoint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from checkpoints.expert_usage import ExpertUsage
    from checkpoints.fidelity import Fidelity
    from checkpoints.manifest import Manifest

__all__ = ["PRUNABLE", "PruneExpertsConfig", "PrunedCheckpoint", "prune_experts"]

PRUNABLE = ("deepseek", "deepseek_v2", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe")
"""Model types shown to work: plain softmax routing over fused experts. Others choose in groups, as
DeepSeek-V2 does, but not V2-Lite."""

_COUNT_NAMES = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass
class PruneExpertsConfig:
    """Keep each layer's most used routed experts and drop the others."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("checkpoint",)

    checkpoint: Path
    """The checkpoint to prune: base, full or merged; not an adapter, not quantized."""

    num_experts: int
    """Routed experts that each layer keeps: at least as many as a token goes to, fewer than there are."""

    output: Path
    """The directory to create."""

    calibration: Path | None = None
    """JSONL to measure usage and loss on: text, messages, or prompt and completion. Default: packaged."""

    fidelity: bool = True
    """Measure KL, agreement and perplexity against the source and put them in the manifest."""

    overwrite: bool = False
    """Replace the output directory if it exists."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Read it first."""

    def __post_init__(self) -> None:
        if self.num_experts < 1:
            raise ConfigError(f"num_experts is {self.num_experts}, expected 1 or more")
        if self.output.absolute() == self.checkpoint.absolute():
            raise ConfigError(f"output is the checkpoint itself ({self.output}); choose another directory")


@dataclass(frozen=True)
class PrunedCheckpoint:
    """What was written, and what it cost."""

    path: Path
    experts_before: int
    experts: int
    """Per layer."""
    share: float
    """Of the routers' choices on the calibration set, the share that fell on the experts kept."""
    tokens: int
    """Of the calibration set."""
    fidelity: Fidelity | None


def prune_experts(config: PruneExpertsConfig) -> PrunedCheckpoint:
    """Write a checkpoint with fewer experts, sealed.

    Raises:
        ConfigError: ``num_experts`` is more than there are, not fewer, or fewer than a token goes to.
        UnsupportedCheckpoint: not a mixture of experts of a model type in ``PRUNABLE``.
        CheckpointError: the source cannot be read or the output cannot be written.
        DataError: the calibration set cannot be used.
    """
    # Here and not above: `trimaran --help` imports this module for its config.
    from checkpoints.atomic import atomic_directory
    from checkpoints.calibration import calibration_batches
    from checkpoints.expert_usage import keep_experts, measure_usage
    from checkpoints.loading import load_model, load_tokenizer
    from checkpoints.manifest import seal
    from checkpoints.prompt import PromptEncoder
    from checkpoints.quiet import quiet_transformers
    from checkpoints.tokens import token_ids

    trust = config.trust_remote_code
    before = _check(config)
    tokenizer = load_tokenizer(config.checkpoint, trust_remote_code=trust)
    batches = calibration_batches(config.calibration, PromptEncoder(tokenizer, token_ids(tokenizer)))
    with atomic_directory(config.output, replace=config.overwrite) as directory:
        model: Any = load_model(config.checkpoint, trust_remote_code=trust)
        usage = measure_usage(model, batches)
        kept = usage.most_used(config.num_experts)
        keep_experts(model, kept)
        manifest = _manifest(config, model, tokenizer, _settings(config, before, usage, kept))
        with quiet_transformers():
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
        del model
        fidelity = _measure(config, directory, batches) if config.fidelity else None
        if fidelity is not None:
            figures = fidelity.as_dict()
            metrics = {"perplexity": figures["perplexity_candidate"], "fidelity": figures}
            manifest = replace(manifest, metrics={**manifest.metrics, **metrics})
        seal(directory, manifest)
    share = usage.share(kept)
    return PrunedCheckpoint(config.output, before, config.num_experts, share, usage.tokens, fidelity)


def _check(config: PruneExpertsConfig) -> int:
    """Check source and ``num_experts`` before any weight is read; return how many experts there are."""
    from checkpoints.loading import describe_source, empty_model

    source, wanted = config.checkpoint, config.num_experts
    kind = describe_source(source).kind
    if kind == "adapter":
        raise UnsupportedCheckpoint(f"{source} is an adapter; merge it first: trimaran merge")
    if kind == "nf4":
        raise UnsupportedCheckpoint(f"{source} is quantized; prune the checkpoint it was made from")
    settings = empty_model(source, trust_remote_code=config.trust_remote_code).config
    counts = (getattr(settings, name, None) for name in _COUNT_NAMES)
    experts = next((count for count in counts if count), None)
    method = getattr(settings, "topk_method", None) or "greedy"
    if settings.model_type not in PRUNABLE or experts is None or method != "greedy":
        what = "does not route by a plain softmax"
        if experts is None:
            what = "has no routed experts"
        elif method != "greedy":
            what = f"chooses experts in groups here (topk_method {method})"
        raise UnsupportedCheckpoint(
            f"{source} is of model type {settings.model_type!r}, which {what}; experts can be pruned of "
            f"{', '.join(PRUNABLE)}"
        )
    chosen = settings.num_experts_per_tok
    accepted = f"expected {chosen} (num_experts_per_tok) to {experts - 1}"
    if wanted > experts:
        raise ConfigError(f"num_experts is {wanted}, but {source} has {experts} per layer; {accepted}")
    if wanted == experts:
        raise ConfigError(f"num_experts is {wanted}, which is what {source} has per layer; {accepted}")
    if wanted < chosen:
        raise ConfigError(
            f"num_experts is {wanted}, but each token of {source} goes to {chosen} experts; {accepted}"
        )
    return int(experts)


def _measure(config: PruneExpertsConfig, directory: Path, batches: list[Tensor]) -> Fidelity:
    """Compare what was written with the source, both in their own precision: mixtures are large."""
    from checkpoints.fidelity import measure_fidelity
    from checkpoints.loading import load_model

    return measure_fidelity(
        load_model(config.checkpoint, trust_remote_code=config.trust_remote_code),
        load_model(directory, trust_remote_code=config.trust_remote_code),
        batches,
    )


def _settings(
    config: PruneExpertsConfig, before: int, usage: ExpertUsage, kept: dict[str, list[int]]
) -> dict[str, Any]:
    return {
        "num_experts": config.num_experts,
        "num_experts_before": before,
        "calibration": str(config.calibration) if config.calibration else "packaged",
        "calibration_tokens": usage.tokens,
        "share_of_choices_kept": round(usage.share(kept), 6),
        "kept": kept,
    }


def _manifest(
    config: PruneExpertsConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: dict[str, Any],
) -> Manifest:
    """The source's lineage with what pruning changes; ``model`` is the pruned one."""
    from checkpoints.base import derived_manifest

    return derived_manifest(
        config.checkpoint, model, tokenizer, kind="pruned", step="prune_experts", settings=settings
    )
