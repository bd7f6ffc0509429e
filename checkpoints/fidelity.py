"""How far a checkpoint drifted from the one it was made from, on the same tokens.

Merging and quantizing should change what a model says as little as possible. These figures say by
how much they did: divergence of the next-token distributions, agreement of the first choice,
perplexity, and how much of the fine-tuning is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from checkpoints.calibration import calibration_batches
from checkpoints.errors import CheckpointError
from checkpoints.progress import progress

__all__ = ["Fidelity", "calibration_batches", "measure_fidelity"]

# Positions whose fp32 log-probabilities are held at a time: 64 x 150,000 x 4 bytes = 38 MB.
_POSITIONS = 64


@dataclass(frozen=True)
class Fidelity:
    """A candidate against its reference."""

    mean_kl: float
    """Mean over tokens of KL(reference || candidate), nats."""
    p99_kl: float
    """The KL that 99% of the tokens stay below, nats."""
    top1_agreement: float
    """Share of tokens where both rank the same token first, 0 to 1."""
    perplexity_reference: float
    perplexity_candidate: float
    perplexity_ratio: float
    """Candidate / reference: 1 is equal, above 1 is worse."""
    tokens: int
    """Predictions compared."""
    adapter_retention: float | None = None
    """How much of what training changed is left: 1 = all, 0 = erased; None without a base model."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for a manifest, rounded to six significant digits."""
        return {
            name: float(f"{value:.6g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def measure_fidelity(
    reference_model: Any,
    candidate_model: Any,
    batches: Sequence[torch.Tensor],
    *,
    base_model: Any = None,
) -> Fidelity:
    """Compare two models' next-token distributions, row by row.

    Holds one row of logits of each model, in the model's own dtype; the softmax is in fp32, a few
    positions at a time, so a large vocabulary costs little.

    Args:
        reference_model: what the candidate should equal (for a merge: base and adapter).
        candidate_model: the merged or quantized model.
        batches: rows of token ids, int64 [T], T >= 2.
        base_model: the model before training; gives ``adapter_retention``: with
            ``d(m) = log p_m - log p_base``, the projection of d(candidate) on d(reference),
            ``E[d(candidate) d(reference)] / E[d(reference)^2]``, expectation over the reference's
            next-token distribution.

    Raises:
        CheckpointError: the vocabularies differ, there is no token to compare, or logits are NaN.
    """
    totals = _Totals(retention=base_model is not None)
    with torch.inference_mode(), progress() as bar:
        task = bar.add_task("fidelity", total=len(batches), note="")
        for ids in batches:
            reference = _logits(reference_model, ids)
            candidate = _logits(candidate_model, ids)
            base = _logits(base_model, ids) if base_model is not None else None
            if candidate.shape != reference.shape or (base is not None and base.shape != reference.shape):
                raise CheckpointError(
                    f"the models have different vocabularies ({reference.shape[-1]} and "
                    f"{candidate.shape[-1]} logits), so they cannot be compared"
                )
            for start in range(0, len(ids) - 1, _POSITIONS):
                chunk = slice(start, min(start + _POSITIONS, len(ids) - 1))
                targets = ids[chunk.start + 1 : chunk.stop + 1].to(reference.device)
                totals.add(
                    _log_probs(reference[chunk], reference.device),
                    _log_probs(candidate[chunk], reference.device),
                    targets,
                    _log_probs(base[chunk], reference.device) if base is not None else None,
                )
            bar.advance(task)
    return totals.result()


class _Totals:
    """Sums over tokens."""

    def __init__(self, *, retention: bool) -> None:
        self.kl: list[torch.Tensor] = []
        self.agreed = 0
        self.nll_reference = 0.0
        self.nll_candidate = 0.0
        self.moved_together = 0.0
        self.moved = 0.0
        self.retention = retention

    def add(
        self,
        reference: torch.Tensor,
        candidate: torch.Tensor,
        targets: torch.Tensor,
        base: torch.Tensor | None,
    ) -> None:
        """Add a chunk: log-probabilities fp32 [T, V] and the tokens that came next [T]."""
        probabilities = reference.exp()
        # Rounding can put a KL of nothing a hair below zero.
        self.kl.append((probabilities * (reference - candidate)).sum(-1).clamp(min=0).double().cpu())
        self.agreed += int((reference.argmax(-1) == candidate.argmax(-1)).sum())
        self.nll_reference -= float(reference.gather(-1, targets[:, None]).double().sum())
        self.nll_candidate -= float(candidate.gather(-1, targets[:, None]).double().sum())
        if base is not None:
            trained = reference - base
            self.moved_together += float((probabilities * (candidate - base) * trained).sum().double())
            self.moved += float((probabilities * trained * trained).sum().double())

    def result(self) -> Fidelity:
        kl = torch.cat(self.kl) if self.kl else torch.empty(0)
        if not len(kl):
            raise CheckpointError("there is no token to compare; give calibration rows of two tokens or more")
        if not bool(torch.isfinite(kl).all()) or not math.isfinite(self.nll_candidate):
            raise CheckpointError("the models' logits hold NaN or infinity, so they cannot be compared")
        reference = _perplexity(self.nll_reference, len(kl))
        candidate = _perplexity(self.nll_candidate, len(kl))
        return Fidelity(
            mean_kl=float(kl.mean()),
            p99_kl=float(kl.kthvalue(math.ceil(0.99 * len(kl))).values),
            top1_agreement=self.agreed / len(kl),
            perplexity_reference=reference,
            perplexity_candidate=candidate,
            perplexity_ratio=candidate / reference,
            tokens=len(kl),
            # An adapter that changed nothing has nothing to keep.
            adapter_retention=self.moved_together / self.moved if self.retention and self.moved > 0 else None,
        )


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids[None].to(model.device), use_cache=False).logits[0]
    return logits


def _log_probs(logits: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.log_softmax(logits.to(device=device, dtype=torch.float32), dim=-1)


def _perplexity(nll: float, tokens: int) -> float:
    # A broken model can pass e^700; a float cannot.
    return math.exp(min(nll / tokens, 700.0))
