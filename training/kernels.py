"""What computes layers and loss: our own functions, or Liger's kernels (https://arxiv.org/abs/2410.10989)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from checkpoints.errors import ConfigError
from training.chunked_loss import chunked_loss
from training.config import TrainConfig
from training.fused.apply import fused_layers
from training.fused.packed_attention import row_wise_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_kernels", "own_functions", "put_liger_in"]

_PATCHES = "liger_kernel.transformers.monkey_patch"


def check_kernels(config: TrainConfig) -> None:
    """Refuse ``kernels = liger`` where it cannot run, before anything is loaded.

    Raises:
        ConfigError: there is no GPU, or the package is not installed.
    """
    if config.kernels != "liger":
        return
    if config.device == "cpu" or not torch.cuda.is_available():
        raise ConfigError(
            "kernels = liger needs a CUDA GPU, and this run would be on a CPU; leave it out: kernels = own "
            "runs on any device"
        )
    if find_spec("liger_kernel") is None:
        raise ConfigError(
            "kernels = liger, but Liger is not installed: pip install 'trimaran[liger]'; or leave it out"
        )


def put_liger_in(config: TrainConfig, model: PreTrainedModel) -> None:
    """Replace norms, MLPs, rotary embeddings and the loss of a base where ``config.kernels`` is liger.

    Raises:
        ConfigError: Liger knows no such model.
    """
    if config.kernels != "liger":
        return
    patches = importlib.import_module(_PATCHES)
    kind = model.config.model_type
    if kind not in patches.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ConfigError(
            f"kernels = liger, but Liger has none for models of type {kind}; leave it out: kernels = own "
            "takes any model"
        )
    patches._apply_liger_kernel_to_instance(model)


@contextmanager
def own_functions(config: TrainConfig, model: Any, example: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Where ``config.kernels`` is own: the loss in chunks and, with ``config.fused``, layers and attention.

    Args:
        model: what is trained.
        example: a small batch that the loss is tried out on, see ``chunked_loss``.
    """
    if config.kernels != "own":
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(chunked_loss(model, example))
        if config.fused:
            stack.enter_context(fused_layers(model))
        if config.fused and config.data.packing:
            stack.enter_context(row_wise_attention())
        yield
