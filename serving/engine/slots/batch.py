"""What a step needs to know of the requests in it, as tensors, made anew only when the rows change."""

from __future__ import annotations

import torch

from serving.engine.request import SamplingParameters
from serving.engine.slots.scheduler import Sequence

__all__ = ["Batch", "PenaltyTensors", "SamplingTensors"]


def _column(parameters: list[SamplingParameters], name: str, device: torch.device) -> torch.Tensor:
    """Return float32 ``[n, 1]``."""
    values = [float(getattr(item, name)) for item in parameters]
    return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)


class SamplingTensors:
    """Temperature and filters of the rows that draw their tokens.

    Args:
        parameters: of all rows of a batch.
        device: where the logits are.
    """

    def __init__(self, parameters: list[SamplingParameters], device: torch.device) -> None:
        self.rows = [row for row, item in enumerate(parameters) if item.temperature > 0]
        """Rows with a temperature above 0; the others take the most likely token."""
        drawing = [parameters[row] for row in self.rows]
        self.index = torch.tensor(self.rows, dtype=torch.int64, device=device)
        self.temperature = _column(drawing, "temperature", device)
        self.filtered = any(item.top_k > 0 or item.top_p < 1 or item.min_p > 0 for item in drawing)
        """Whether any of them leaves tokens out."""
        # A top_k of 0 keeps all; no vocabulary is larger than int64 counts.
        kept = [item.top_k or torch.iinfo(torch.int64).max for item in drawing]
        self.top_k = torch.tensor(kept, dtype=torch.int64, device=device).unsqueeze(1)
        self.top_p = _column(drawing, "top_p", device)
        self.min_p = _column(drawing, "min_p", device)


class PenaltyTensors:
    """Penalties of the rows that have one.

    Args:
        parameters: of all rows of a batch.
        first_row: slot of the batch's first row.
        device: where the logits are.
    """

    def __init__(self, parameters: list[SamplingParameters], first_row: int, device: torch.device) -> None:
        rows = [row for row, item in enumerate(parameters) if item.penalizes]
        penalized = [parameters[row] for row in rows]
        self.empty = not rows
        self.index = torch.tensor(rows, dtype=torch.int64, device=device)
        """Rows of the batch."""
        self.slots = self.index + first_row
        """Their slots."""
        self.repetition = _column(penalized, "repetition_penalty", device)
        self.presence = _column(penalized, "presence_penalty", device)
        self.frequency = _column(penalized, "frequency_penalty", device)


class Batch:
    """The requests of one decode step, or the one whose prompt is complete.

    Args:
        sequences: the requests, in row order.
        first_row: slot of the first.
        device: where the logits are.
    """

    def __init__(self, sequences: list[Sequence], first_row: int, device: torch.device) -> None:
        parameters = [item.request.sampling for item in sequences]
        self.sequences = sequences
        self.first_row = first_row
        self.sampling = SamplingTensors(parameters, device)
        self.penalties = PenaltyTensors(parameters, first_row, device)
        self.wants_log_probs = any(item.request.return_log_probs for item in sequences)
        self._device = device
        self._held: torch.Tensor | None = None
        self._held_for = 0

    def holds(self, sequences: list[Sequence], first_row: int) -> bool:
        """Whether this is the batch of these requests in these rows."""
        return self.first_row == first_row and self.sequences == sequences

    def draws(self) -> torch.Tensor:
        """Return float64 ``[n]``: the next random number of each row that draws its token."""
        numbers = [self.sequences[row].uniform.random() for row in self.sampling.rows]
        return torch.tensor(numbers, dtype=torch.float64, device=self._device)

    def held_back(self) -> torch.Tensor | None:
        """Return int64 ``[n, 1]``: rows that may not end at this step; None where all may."""
        if self._held_for == 0:
            left = [item.request.sampling.min_tokens - len(item.token_ids) for item in self.sequences]
            rows = [row for row, tokens in enumerate(left) if tokens > 0]
            self._held = torch.tensor(rows, device=self._device).unsqueeze(1) if rows else None
            # Nothing changes until the first of them has its tokens; with none it never does.
            self._held_for = min((left[row] for row in rows), default=-1)
        self._held_for -= 1
        return self._held
