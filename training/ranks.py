"""The processes of one run: who they are, and what they do together.

``torchrun`` or ``accelerate launch`` starts them and says in environment variables who each is. A run in one
process goes through the same calls, which then do nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import distributed

from checkpoints.errors import ConfigError, TrimaranError
from training import zero
from training.config import TrainConfig
from training.optimizers import OPTIMIZERS

__all__ = [
    "any_rank",
    "check_ranks",
    "from_first",
    "gather_objects",
    "is_first",
    "join_ranks",
    "parallelism",
    "rank_count",
    "shard_on_cpu",
    "strategy",
    "sum_of_ranks",
    "wait",
]

_Result = TypeVar("_Result")


def strategy() -> Literal["ddp", "fsdp", "zero"]:
    """Return how ranks share the work: what ``accelerate launch`` was told, DDP if nothing.

    ``ddp`` keeps all weights on every rank, ``fsdp`` (FSDP2) and ``zero`` (DeepSpeed) a share of them.
    """
    if _is_set("ACCELERATE_USE_FSDP"):
        return "fsdp"
    return "zero" if _is_set("ACCELERATE_USE_DEEPSPEED") else "ddp"


def join_ranks(config: TrainConfig) -> None:
    """Meet the other ranks; each takes its own GPU. Without a launcher, nothing happens.

    Raises:
        ConfigError: DeepSpeed is asked for in a form that is not ZeRO-3 or is not installed, or FSDP in a
            form that is not FSDP2.
    """
    if "RANK" not in os.environ or distributed.is_initialized():
        return
    if strategy() == "zero":
        zero.check_launcher()
    if strategy() == "fsdp" and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(
            "fsdp_version = 1 in the launcher's settings: only FSDP2 is supported; set fsdp_version: 2, or "
            "use recipes/accelerate/fsdp2.yaml"
        )
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        # Else accelerate chooses a number of threads, and warns.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        if strategy() == "zero":
            zero.compute_on_cpu()
    # While the first rank writes a large checkpoint, the others wait for it.
    PartialState(cpu=on_cpu, timeout=timedelta(hours=2))


def check_ranks(config: TrainConfig) -> None:
    """Refuse what several ranks cannot do.

    Args:
        config: with ``base_quantization`` set where the base is NF4 already.

    Raises:
        ConfigError: one rank would do a step again alone, or weights would be sharded that cannot be.
    """
    if config.retry_out_of_memory and rank_count() > 1:
        raise ConfigError(
            f"retry_out_of_memory = true and {rank_count()} ranks clash: ranks exchange gradients in each "
            "pass, and one alone cannot do its pass again; lower batch_size and raise gradient_accumulation"
        )
    if "RANK" not in os.environ or strategy() == "ddp":
        return
    if config.base_quantization is not None:
        raise ConfigError(
            f"base_quantization = {config.base_quantization} and {strategy()} clash: packed 4-bit weights "
            "cannot be split between ranks; use DDP (recipes/accelerate/ddp.yaml), where each rank has a "
            "whole packed base, or method = lora on the base as it is"
        )
    if config.dtype == "fp16":
        raise ConfigError(
            f"dtype = fp16 and {strategy()} clash: gradients of split weights are not scaled back; use "
            "dtype = bf16 or fp32, or DDP"
        )
    if OPTIMIZERS[config.optimizer].needs_gpu:
        raise ConfigError(
            f"optimizer = {config.optimizer} and {strategy()} clash: bitsandbytes' optimizers know no "
            "weights that are split between ranks; set optimizer = adamw, whose states are split, too"
        )
    if config.moe.router == "warmup":
        raise ConfigError(
            f"moe.router = warmup and {strategy()} clash: split weights are others than those that wait for "
            "the end of the warm-up; use DDP, or moe.router = trainable or frozen"
        )
    if strategy() == "zero" and config.method == "full" and config.full.weights == "bf16":
        raise ConfigError(
            "full.weights = bf16 and zero clash: DeepSpeed would step through a copy in fp32 that the memory "
            "estimate and other ways to train know nothing of; leave full.weights at fp32, or use FSDP2"
        )
    if config.ewc.save or config.ewc.from_run:
        raise ConfigError(
            f"ewc and {strategy()} clash: no rank has the whole of a weight; train on one device or with "
            "DDP, or leave ewc.save and ewc.from_run out"
        )


def shard_on_cpu() -> None:
    """Let accelerate 1.15 use FSDP2 on ranks without GPUs, which it does on GPUs only; torch can do both.

    To be called between making ``TrainingArguments`` and the ``Trainer``.
    """
    state = PartialState()
    if strategy() == "fsdp" and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU  # AcceleratorState makes FSDP of it


def rank_count() -> int:
    """Return how many processes train."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes files."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def parallelism() -> dict[str, Any]:
    """Return number of ranks and strategy, as ``run.json`` has them."""
    alone = rank_count() == 1 and strategy() == "ddp"
    return {"ranks": rank_count(), "strategy": "single" if alone else strategy()}


def wait() -> None:
    """Wait until every rank is here."""
    if rank_count() > 1:
        distributed.barrier()


def gather_objects(one: _Result) -> list[_Result]:
    """Return what each rank gives, by rank; all must call. Small things only: they are pickled."""
    if rank_count() == 1:
        return [one]
    found: list[Any] = [None] * rank_count()
    distributed.all_gather_object(found, one)
    return found


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is true on at least one rank; all must ask.

    Args:
        device: of the model, where the ranks' messages go.
    """
    if rank_count() == 1:
        return flag
    asked = torch.tensor(int(flag), device=device)
    distributed.all_reduce(asked, distributed.ReduceOp.MAX)
    return bool(asked)


def sum_of_ranks(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of every rank's ``value``, of one shape and on the model's device; all must ask."""
    if rank_count() == 1:
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def from_first(make: Callable[[], _Result]) -> _Result:
    """Call ``make`` on the first rank only and return its result on all.

    Raises:
        TrimaranError: what ``make`` raised, on every rank.
    """
    if rank_count() == 1:
        return make()
    told: list[Any] = [None, None]
    if is_first():
        try:
            told[0] = make()
        except TrimaranError as error:
            told[1] = error
    distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    return told[0]


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
