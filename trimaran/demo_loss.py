"""Mean loss of a checkpoint on held-out rows, on the tokens that training would learn."""

from __future__ import annotations

from pathlib import Path

import torch

from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from training.base import resolve_dtype
from training.data.encoding import IGNORED, RowEncoder, encode_rows
from training.data.formats import read_rows

__all__ = ["completion_loss"]


@torch.inference_mode()
def completion_loss(checkpoint: Path, rows: Path, *, max_length: int) -> float:
    """Return the loss in nats per completion token.

    Args:
        checkpoint: a sealed checkpoint.
        rows: JSONL, in a training format.
        max_length: tokens of a row; longer ones are cut.
    """
    encoder = PromptEncoder.from_checkpoint(checkpoint)
    # bf16 is many times slower than fp32 on a CPU without bf16 instructions.
    model = load_model(checkpoint, dtype=resolve_dtype("auto", "auto"))
    total, count = 0.0, 0
    for row in encode_rows(
        RowEncoder(encoder, encoder.tokens), read_rows(rows), max_length=max_length, what="evaluation"
    ):
        ids = torch.tensor([row.input_ids], device=model.device)
        labels = torch.tensor(row.labels, device=model.device)[1:]
        logits = model(input_ids=ids).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        total += float(loss)
        count += int((labels != IGNORED).sum())
    return total / count
