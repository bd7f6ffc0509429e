"""The loss of a causal language model without the logits of all positions at once.

With a vocabulary of 50,000 the logits of 2,048 positions are 400 MB in fp32, several times over while the
loss and its gradient are computed. Here the head's product, the cross-entropy and their gradients are done
for some positions at a time, and only for those that are trained on. (The idea is that of Liger Kernel's
fused linear cross-entropy, arXiv:2410.10989; here in plain PyTorch, on any device.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["chunk_rows", "chunked_cross_entropy", "chunked_loss", "computes_in_chunks", "output_head"]

logger = logging.getLogger(__name__)

_CHUNK_VALUES = 1 << 23
"""Logits that are alive at once: 32 MB in fp32."""

_TOLERANCE = 1e-3
"""Relative difference of the two ways' losses; in bf16 both round each logit to 8 bits, alike."""

_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Settings of transformers' models that bend the head's product (Gemma, RecurrentGemma, xLSTM)."""


def chunk_rows(vocabulary: int) -> int:
    """Return how many positions have their logits there at once."""
    return max(1, _CHUNK_VALUES // vocabulary)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradients in the forward pass, while each chunk's logits are there."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, gradients: bool
    ) -> Tensor:
        vocabulary = weight.shape[0]
        rows = max(1, min(chunk_rows(vocabulary), len(labels)))  # a rank may have nothing but filler
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        # The same memory for each chunk: what is allocated anew, a CPU has to clear first.
        wide = torch.empty((rows, vocabulary), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(labels), rows):
            part, wanted = hidden[start : start + rows], labels[start : start + rows, None]
            product = functional.linear(part, weight, bias)
            logits = wide[: len(part)].copy_(product)
            highest = logits.amax(dim=-1, keepdim=True)
            at_label = logits.gather(1, wanted)
            exponentials = logits.sub_(highest).exp_()
            sums = exponentials.sum(dim=-1, keepdim=True)
            total += (sums.log() + highest - at_label).sum()
            if not gradients:
                continue
            # d loss / d logits: the probabilities, less 1 at the label.
            probabilities = exponentials.div_(sums)
            probabilities.scatter_add_(1, wanted, probabilities.new_full(wanted.shape, -1.0))
            gradient = product.copy_(probabilities)
            grad_hidden[start : start + rows] = gradient @ weight.to(product.dtype)
            if grad_weight is not None:
                grad_weight += gradient.T @ part.to(product.dtype)
            if grad_bias is not None:
                grad_bias += gradient.sum(dim=0)
            del product, gradient  # or they are there beside the next chunk's
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # An fp32 scalar does not widen a bf16 tensor; rounded to bf16, 1 / tokens would be off by up to 0.4%.
        scaled = (None if one is None else one * upstream[0] for one in ctx.saved_tensors)
        return *scaled, None, None


def chunked_cross_entropy(hidden: Tensor, head: nn.Linear, labels: Tensor) -> Tensor:
    """Return the sum of the cross-entropies in nats, a float32 scalar.

    Args:
        hidden: ``[positions, width]``: the input of the head.
        head: ``width -> vocabulary``.
        labels: int64 ``[positions]``: the token to predict at each; all count.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(
        hidden, head.weight, head.bias, labels, torch.is_grad_enabled()
    )
    return total


class _Loss:
    """Takes the place of transformers' loss function; what it gets as logits is the head's input."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int,
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        if shift_labels is None:
            shift_labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        wanted = shift_labels.reshape(-1).to(logits.device)
        counted = wanted != ignore_index
        hidden = logits.reshape(-1, logits.shape[-1])[counted]
        if not torch.is_autocast_enabled(hidden.device.type):
            # A model may widen its logits (Mamba, Nemotron-H), which here widens the head's input.
            hidden = hidden.to(self._head.weight.dtype)
        total = chunked_cross_entropy(hidden, self._head, wanted[counted])
        count = counted.sum() if num_items_in_batch is None else num_items_in_batch
        return total / (count.to(total.device) if isinstance(count, Tensor) else count)


@contextmanager
def chunked_loss(model: Any, example: Mapping[str, Tensor]) -> Iterator[bool]:
    """Let ``model`` compute its loss in chunks inside the block; its ``logits`` are then not the logits.

    Whether the two ways agree is tried out first: a model that scales or caps its logits, or whose head is no
    plain linear layer, keeps its own loss.

    Args:
        model: a causal language model of transformers, which a method may have adapted.
        example: a small batch: ``input_ids``, ``attention_mask``, ``labels``, on any device.

    Yields:
        Whether the loss is computed in chunks.
    """
    causal, head = _causal(model), output_head(model)
    if head is None:
        yield False
        return
    own = _loss_of(model, example)
    with _replaced(causal, head):
        try:
            chunked = _loss_of(model, example)
        except torch.OutOfMemoryError:  # says nothing of the model, and all at once would take more
            raise
        except RuntimeError as error:  # what the model does to its logits, the head's input does not take
            logger.info("the loss in chunks cannot be computed for this model, so all is at once: %s", error)
            chunked = None
    if chunked is None:
        yield False
        return
    if not abs(chunked - own) <= _TOLERANCE * max(1.0, abs(own)):
        logger.info("this model's logits are more than its head's product, so all are computed at once")
        yield False
        return
    with _replaced(causal, head):
        yield True


def output_head(model: Any) -> nn.Linear | None:
    """Return the head whose product can be computed in chunks; None where it is no plain linear layer."""
    head = _causal(model).get_output_embeddings()
    wide = (torch.float32, torch.bfloat16, torch.float16)
    return head if type(head) is nn.Linear and head.weight.dtype in wide else None


def computes_in_chunks(model: Any) -> bool:
    """Say without weights whether ``chunked_loss`` will compute in chunks; the meta device is enough.

    A run tries it out; here the model's head and config are asked.
    """
    text = model.config.get_text_config()
    return output_head(model) is not None and not any(getattr(text, name, None) for name in _CAPS)


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _replaced(causal: Any, head: nn.Linear) -> Iterator[None]:
    causal.loss_function = _Loss(head)
    head.forward = _pass_on
    try:
        yield
    finally:
        del causal._loss_function
        del head.forward


def _pass_on(hidden: Tensor) -> Tensor:
    return hidden


@torch.no_grad()
def _loss_of(model: Any, example: Mapping[str, Tensor]) -> float:
    training = model.training
    model.eval()  # dropout would make the two differ
    try:
        batch = {name: value.to(model.device) for name, value in example.items()}
        return float(model(**batch).loss)
    finally:
        model.train(training)
