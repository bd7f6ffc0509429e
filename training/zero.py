"""DeepSpeed ZeRO-3: weights, gradients and optimizer states split between ranks, gathered layer by layer.

DeepSpeed has a layer's weights whole while the layer computes. Some of ours are read by another module than
their own: the head's by the loss in chunks, a base layer's by its LoRA. DeepSpeed notices the first such
reading and from then on gathers the weight with the module that reads it, in the backward pass as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, distributed, nn
from torch.nn import functional
from transformers import TrainingArguments
from transformers.integrations.deepspeed import deepspeed_config, unset_hf_deepspeed_config

from checkpoints.errors import ConfigError
from training.config import TrainConfig
from training.precision import autocasts

__all__ = [
    "check_launcher",
    "compute_on_cpu",
    "is_split",
    "run_config_decides",
    "split_weights",
    "whole",
]

_BATCHES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def check_launcher() -> None:
    """Refuse what the launcher asks for and is not there.

    Raises:
        ConfigError: DeepSpeed is not installed, or it is another stage than ZeRO-3.
    """
    if find_spec("deepspeed") is None:
        raise ConfigError(
            "the launcher's settings ask for DeepSpeed, which is not installed: pip install "
            "'trimaran[deepspeed]'; or use recipes/accelerate/fsdp2.yaml, which splits the same"
        )
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    stage: Any = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if path != "none":
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
        stage = settings.get("zero_optimization", {}).get("stage", 0)
        for section in ("optimizer", "scheduler"):
            if section in settings:
                raise ConfigError(
                    f"{path} sets {section}, which the run config sets as well: leave it out there"
                )
    if str(stage) != "3":
        raise ConfigError(
            f"zero_stage = {stage} in the launcher's settings: only ZeRO-3 is supported; set zero_stage: 3 "
            "as recipes/accelerate/zero3.yaml does, or use DDP (recipes/accelerate/ddp.yaml)"
        )


def compute_on_cpu() -> None:
    """Have DeepSpeed compute on the CPU and talk by gloo; to be called before anything imports it."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    backend: Any = import_module("deepspeed.comm.torch")  # as an attribute of the package, torch is PyTorch
    # It would compile C++ for ranks of one machine at the first start; gloo does the same, slower.
    backend.build_shm_op = lambda: None


def run_config_decides(arguments: TrainingArguments) -> None:
    """Take from DeepSpeed's settings what the run config sets; the Trainer fills it in."""
    settings = arguments.deepspeed_plugin.deepspeed_config
    settings |= dict.fromkeys((*_BATCHES, "gradient_clipping"), "auto")
    # Autocast computes in bf16 as in one process, see split_weights: DeepSpeed would train bf16 weights.
    settings |= {"bf16": {"enabled": False}, "fp16": {"enabled": False}}


@contextmanager
def split_weights(config: TrainConfig, model: nn.Module, device: torch.device) -> Iterator[None]:
    """Split the weights of ``model``, and compute it inside the block as in one process.

    DeepSpeed would do the first by itself, once it has moved the whole model to each GPU.

    Args:
        config: with ``dtype`` resolved.
        model: on a CPU.
        device: this rank's.
    """
    from deepspeed.comm import init_distributed
    from deepspeed.runtime.zero import Init

    # The ranks have met; DeepSpeed has to know.
    init_distributed(distributed.get_backend(), auto_mpi_discovery=False)
    linear = functional.linear  # replaced by one that keeps no whole weights for the backward pass
    Init(module=model, config_dict_or_path=deepspeed_config())  # moves each weight before it splits it
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    if autocasts(config):
        autocast = torch.autocast(device.type, torch.bfloat16)
        model.__dict__["forward"] = convert_outputs_to_fp32(autocast(model.forward))
    try:
        yield
    finally:
        functional.linear = linear
        model.__dict__.pop("forward", None)
        unset_hf_deepspeed_config()  # or transformers would split the next model while it loads it


def is_split(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 has split a weight."""
    return hasattr(parameter, "ds_id")


@contextmanager
def whole(parameter: nn.Parameter) -> Iterator[Tensor]:
    """Yield the values of a weight that ZeRO-3 has split, on this rank's device; every rank must call."""
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter]):
        yield parameter.detach()
