"""Makes a loaded model ready to serve: fast paths that give the model's own numbers, and no others.

Each path decides for itself where it applies; what it does not know stays as Hugging Face wrote it.
"""

from __future__ import annotations

import logging

from transformers import PreTrainedModel

from serving.engine.torch.decoder_layer import fuse_decoder_layers
from serving.engine.torch.decoder_stack import stack_decoder_layers
from serving.engine.torch.joined_linear import join_linear_layers
from serving.engine.torch.norms import fuse_norms
from serving.engine.torch.products import pack_linear_layers
from serving.engine.torch.replacing import copy_parameters
from serving.engine.torch.support import shown_equal

__all__ = ["prepare_model"]

logger = logging.getLogger(__name__)

_LAYOUT_ROWS = 32
"""Rows the weight layout is chosen for; the layouts for 8 and 32 also serve one row well, not the reverse."""


def prepare_model(model: PreTrainedModel) -> None:
    """Replace layers of ``model``, in place, by faster ones; afterwards it only serves.

    Only architectures that the tests hold against ``generate`` are touched.
    """
    if model.device.type != "cpu" or not shown_equal(model.config):
        return
    loaded = _parameter_bytes(model)
    layers = fuse_decoder_layers(model, rows=_LAYOUT_ROWS)
    stacked = stack_decoder_layers(model)
    joined = join_linear_layers(model, rows=_LAYOUT_ROWS)
    packed = pack_linear_layers(model, rows=_LAYOUT_ROWS)
    fused = fuse_norms(model)
    if 2 * _parameter_bytes(model) < loaded:
        copy_parameters(model)
    logger.info(
        "fast paths: %d decoder layers fused%s; of the others %d linear layers laid out anew, %d more of"
        " several in one, %d norms fused",
        layers,
        ", into one" if stacked else "",
        packed,
        joined,
        fused,
    )


def _parameter_bytes(model: PreTrainedModel) -> int:
    return sum(value.nbytes for value in model.parameters())
