"""What the loss and its gradient take beside the activations of the layers.

``tests/training/test_loss_estimate.py`` holds it against what is really allocated.
"""

from __future__ import annotations

from typing import Any

from training.chunked_loss import chunk_rows, computes_in_chunks, output_head
from training.config import TrainConfig
from training.precision import autocasts

__all__ = ["loss_bytes"]

_FP32 = 4
# Of each number of the logits, where all are there at once: log-softmax and its gradient in fp32; and logits
# and their gradient in bf16, or the logits in fp32.
_WHOLE = 12


def loss_bytes(config: TrainConfig, model: Any, tokens: int) -> int:
    """Return the bytes that are there at most while the loss of one forward pass is computed.

    Args:
        config: with ``dtype`` resolved.
        model: with the method's weights on it; on the meta device is enough.
        tokens: rows times tokens of the pass; all are taken as trained on.
    """
    head = output_head(model)
    if head is None or not computes_in_chunks(model):
        return tokens * _WHOLE * int(model.config.get_text_config().vocab_size)
    vocabulary, hidden = head.weight.shape
    compute = 2 if config.dtype in ("bf16", "fp16") else _FP32
    autocast = autocasts(config)
    # Of one chunk: the product, and in fp32 what becomes the exponentials and the probabilities.
    logits = compute + _FP32
    total = min(tokens, chunk_rows(vocabulary)) * vocabulary * logits
    # The head's input at the positions that are trained on, and its gradient.
    total += 2 * tokens * hidden * (_FP32 if autocast else compute)
    if autocast:
        total += compute * head.weight.numel()  # a copy, while one chunk is computed
    if head.weight.requires_grad:
        # Its gradient is summed in fp32; and what one chunk adds to it.
        total += (_FP32 + compute) * head.weight.numel()
    return total
