"""Our settings on ``transformers.Trainer``: one loop, theirs; what it lacks are callbacks.

The loss of an optimizer step is the sum over all its trained tokens divided by their number, whatever
the gradient accumulation, so ``batch_size x gradient_accumulation`` may be split in any way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from training.callbacks.epoch_order import EpochOrder
from training.callbacks.state_rotation import StateRotation
from training.config import TrainConfig
from training.data.dataset import EncodedDataset
from training.data.filler import FilledDataset, FilledSampler
from training.data.packing import BatchCollator, PackedDataset
from training.data.sampling import RowSampler
from training.ewc.penalty import Penalty
from training.guard import StepGuard
from training.loss_scaling import check_fp16, scale_losses
from training.moe.setup import MoeRun
from training.optimizers import OPTIMIZERS
from training.ordered_trainer import OrderedTrainer
from training.precision import autocasts
from training.ranks import rank_count, shard_on_cpu, strategy
from training.retry import HalvedBatches
from training.zero import run_config_decides

__all__ = ["build_trainer", "row_sampler", "training_arguments"]


def training_arguments(config: TrainConfig, checkpoints: Path, *, evaluate: bool) -> TrainingArguments:
    """Translate our settings.

    Args:
        checkpoints: directory for the states to resume from.
        evaluate: whether there are evaluation rows.
    """
    # The Trainer reads a value below 1 as a share of the steps.
    warmup = config.warmup_ratio if config.warmup_steps is None else config.warmup_steps
    arguments: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps if config.max_steps is not None else -1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "warmup_steps": warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": OPTIMIZERS[config.optimizer].trainer_name,
        "bf16": autocasts(config) and config.dtype == "bf16" and strategy() != "zero",
        "fp16": config.dtype == "fp16",
        "logging_strategy": "steps",
        "logging_steps": config.log_steps,
        # The filter would hide a NaN loss behind the average of the steps before.
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        "eval_strategy": "steps" if evaluate else "no",
        # Without eval_steps: beyond any last step, where the Trainer evaluates anyway.
        "eval_steps": (config.eval_steps or 10**12) if evaluate else None,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": None,  # StateRotation removes them
        "seed": config.seed,
        "use_cpu": config.device == "cpu" or not torch.cuda.is_available(),
        "dataloader_pin_memory": config.device != "cpu" and torch.cuda.is_available(),
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "disable_tqdm": True,
        "report_to": [],
    }
    built = TrainingArguments(**arguments)
    if built.n_gpu > 1:
        # Without torchrun the Trainer would wrap the model in DataParallel, which is slower than one GPU
        # for such models and cannot take an NF4 base. More GPUs are torchrun's business.
        built._n_gpu = 1
    if strategy() == "zero":
        run_config_decides(built)
    return built


def build_trainer(
    config: TrainConfig,
    model: PeftModel | PreTrainedModel,
    *,
    train: EncodedDataset | PackedDataset,
    evaluation: EncodedDataset | None,
    pad_id: int,
    decode: Callable[[Sequence[int]], str],
    checkpoints: Path,
    callbacks: Sequence[TrainerCallback],
    moe: MoeRun | None = None,
    penalty: Penalty | None = None,
) -> Trainer:
    """Return a Trainer that is ready to train ``model``; it prints nothing by itself."""
    check_fp16(config, model)
    sampler = row_sampler(config, train)
    more: dict[str, Any]
    kind, more = (moe.trainer_class, moe.arguments) if moe else (OrderedTrainer, {})
    arguments = training_arguments(config, checkpoints, evaluate=evaluation is not None)
    shard_on_cpu()
    ranks = rank_count()
    trainer = kind(
        **more,
        model=model,
        args=arguments,
        data_collator=BatchCollator(pad_id),
        train_dataset=train if ranks == 1 else FilledDataset(train, pad_id),
        eval_dataset=evaluation if ranks == 1 or evaluation is None else FilledDataset(evaluation, pad_id),
        callbacks=[EpochOrder(sampler), StateRotation(config.save_total_limit), *callbacks],
    )
    if strategy() == "fsdp":
        # accelerate has made a policy of TrainingArguments.bf16, which rounds the loss and what goes from
        # layer to layer; autocast computes in bf16 as in one process.
        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    if strategy() == "zero":
        # accelerate warns where this differs from DeepSpeed's own number, and goes by that.
        trainer.accelerator.gradient_accumulation_steps = config.gradient_accumulation
    scale_losses(config, trainer)
    trainer.row_sampler = sampler if ranks == 1 else FilledSampler(sampler, ranks * config.batch_size)
    trainer.guard = StepGuard(train, decode)
    trainer.halved = HalvedBatches() if config.retry_out_of_memory else None
    trainer.penalty = penalty
    trainer.remove_callback(PrinterCallback)
    return trainer


def row_sampler(config: TrainConfig, train: EncodedDataset | PackedDataset) -> RowSampler:
    """Return the order of ``train``; packs were made of balanced draws already and are only shuffled."""
    labels = None
    if config.data.sampling.by is not None and isinstance(train, EncodedDataset):
        labels = train.labels
    return RowSampler(len(train), config.seed, labels=labels, alpha=config.data.sampling.alpha)
