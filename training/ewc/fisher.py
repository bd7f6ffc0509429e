"""The diagonal of the empirical Fisher information: which weights the loss on some rows depends on.

A row is one draw: the gradient of its log-likelihood, the sum over its trained tokens, is squared. (The
square of a batch's gradient would be something else: the gradients of its rows cancel out.) The sum over the
rows is divided by the number of their trained tokens, as the training loss is, so that

    loss(theta) ~ loss(theta*) + 1/2 sum_i F_i (theta_i - theta*_i)^2

is in nats per token, and a weight of 1 makes the old rows count as much as the new ones.

Empirical: the tokens are those of the rows, not drawn from the model. That needs one backward pass per row
and no sampling; it is close to the Fisher where the model fits the rows, which is where training has brought
it, and too large where it does not (Kunstner et al. 2019, https://arxiv.org/abs/1905.12558).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checkpoints.progress import progress
from training.data.collator import PaddingCollator
from training.data.dataset import EncodedDataset
from training.moe.own_balance import without_own_balance_loss

__all__ = ["choose_rows", "estimate_fisher", "trained_parameters"]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def choose_rows(rows: int, samples: int, seed: int) -> list[int]:
    """Return the indices of ``samples`` of ``rows`` rows, or of all, in order."""
    chosen = np.random.default_rng(seed).choice(rows, size=min(samples, rows), replace=False)
    return sorted(int(index) for index in chosen)


def estimate_fisher(
    model: Any, data: EncodedDataset, rows: list[int], *, pad_id: int, autocast: bool
) -> tuple[dict[str, Tensor], int]:
    """Estimate the diagonal for the trained parameters, at the values they have now, without dropout.

    Args:
        model: a causal language model of transformers, which a method may have adapted.
        data: the training rows.
        rows: which of them.
        pad_id: of the batches, each of one row.
        autocast: compute in bf16 beside weights in fp32, as training did.

    Returns:
        By the parameter's name the diagonal, float32, in its shape and on its device; and how many trained
        tokens the rows have.
    """
    trained = trained_parameters(model)
    squares = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in trained.items()}
    collate, tokens = PaddingCollator(pad_id), 0
    training = model.training
    model.eval()
    try:
        with progress() as bar, without_own_balance_loss(model.config), torch.enable_grad():
            task = bar.add_task("fisher", total=len(rows), note="")
            for index in rows:
                row = data[index]
                batch = {name: value.to(model.device) for name, value in collate([row]).items()}
                with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
                    mean = model(**batch).loss
                # Not .backward(): nothing is to be left in .grad.
                gradients = torch.autograd.grad(
                    mean * row.trained_tokens, list(trained.values()), allow_unused=True
                )
                for square, gradient in zip(squares.values(), gradients, strict=True):
                    if gradient is not None:  # an expert that got none of the row's tokens
                        square += gradient.float().square()
                tokens += row.trained_tokens
                bar.update(task, advance=1, note=f"{tokens:,} tokens")
    finally:
        model.train(training)
    return {name: square.div_(tokens) for name, square in squares.items()}, tokens
