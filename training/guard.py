"""Stops a run whose loss or gradients are no longer numbers, before a step is taken with them.

``guard`` looks once per optimizer step. What it needs to name the rows, the token ids of the step's batches,
is kept until then; who they are is looked up only when something is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints.errors import ConfigError
from training.data.dataset import EncodedDataset
from training.data.packing import PackedDataset
from training.loss_scaling import LOWEST_SCALE
from training.ranks import gather_objects

__all__ = ["StepGuard", "batch_rows", "find_row"]

logger = logging.getLogger(__name__)

_SHOWN = 8
_BEGINNING = 40


class StepGuard:
    """Remembers the batches of one optimizer step and their losses.

    Args:
        rows: what is trained on.
        decode: token ids -> text, for people.
    """

    def __init__(self, rows: EncodedDataset | PackedDataset, decode: Callable[[Sequence[int]], str]) -> None:
        self._rows = rows.rows if isinstance(rows, PackedDataset) else rows
        self._decode = decode
        self._batches: list[dict[str, Tensor]] = []
        self._losses: list[Tensor] = []

    def add(self, batch: dict[str, Tensor], loss: Tensor) -> None:
        """Remember a forward pass; waits for no device."""
        self._batches.append(batch)
        self._losses.append(loss.detach())

    def check(
        self,
        grad_norm: Tensor | float | None,
        *,
        step: int,
        learning_rate: float,
        alone: bool,
        hint: str = "",
        scale: float | None = None,
    ) -> None:
        """Look at the step's losses and the norm of its gradients, and forget them.

        Args:
            grad_norm: over all ranks, so that all of them stop.
            step: the one that would be taken, from 1.
            learning_rate: the highest of the run.
            hint: one more remedy.
            scale: of the loss, in fp16: a step whose scaled gradients overflow is skipped, and the scale
                lowered.
            alone: whether there is one rank. Of several all must stop, so only what they share counts.

        Raises:
            ConfigError: one is not finite.
        """
        batches, losses = self._batches, self._losses
        self._batches, self._losses = [], []
        norm = torch.as_tensor(0.0 if grad_norm is None else grad_norm)
        seen = [norm, torch.stack(losses).sum().to(norm.device)] if alone and losses else [norm]
        if bool(torch.stack(seen).isfinite().all()):
            return
        bad = [index for index, loss in enumerate(losses) if not loss.isfinite()]
        mine = (float(losses[bad[0]]), self._name(batches[index] for index in bad)) if bad else None
        # Who has the row says so on all ranks: only the first one's message is read.
        known = [one for one in gather_objects(mine) if one is not None]
        if not known and scale is not None and scale > LOWEST_SCALE:
            logger.info("step %d is skipped: its gradients overflow at a loss scale of %g", step, scale)
            return
        if known:
            what, named = f"the loss is {known[0][0]}", ", ".join(names for _, names in known)
        else:
            what = f"the norm of the gradients is {float(norm)}"
            named = ", ".join(gather_objects(self._name(batches)))
        raise ConfigError(
            f"{what} at step {step}, so training has diverged, or a row is to blame; no state was saved with "
            f"it, and the last one is good. Lower learning_rate ({learning_rate:g}), add warm-up, or "
            f"use dtype = fp32{hint}; or look at the rows of this step: {named}"
        )

    def _name(self, batches: Any) -> str:
        parts = [ids for batch in batches for ids in batch_rows(batch)]
        names = []
        for ids in parts[:_SHOWN]:
            where = find_row(self._rows, ids)
            text = self._decode(ids[:_BEGINNING])
            names.append(f"{where or 'padding'} {text!r}")
        more = f", and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
        return ", ".join(names) + more


def batch_rows(batch: dict[str, Tensor]) -> list[list[int]]:
    """Take a batch of either collator apart.

    Args:
        batch: ``input_ids``, and ``attention_mask`` or ``position_ids``, int64 ``[sequences, length]``.

    Returns:
        The token ids of each row; of packs also their padding, as a row of its own.
    """
    found: list[list[int]] = []
    ids = batch["input_ids"].cpu()
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    for index, sequence in enumerate(ids):
        if positions is None:
            kept = sequence if mask is None else sequence[mask[index].cpu().bool()]
            found.append(kept.tolist())
            continue
        starts = (positions[index].cpu() == 0).nonzero().flatten().tolist()
        ends = [*starts[1:], len(sequence)]
        found += [sequence[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
    return found


def find_row(rows: EncodedDataset, ids: Sequence[int]) -> str | None:
    """Return ``PATH:N`` of the first row with these tokens, N its line or row there; None for padding."""
    for index in np.flatnonzero(rows.lengths == len(ids)):
        if rows[int(index)].input_ids == list(ids):
            return rows.where(int(index))
    return None
