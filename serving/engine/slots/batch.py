"""What a step needs to know of the requests in it, as tensors, made anew only when the rows change."""

from __future__ import annotations

import torch

from serving.engine.request import SamplingParameters
from serving.engine.slots.scheduler import Sequence

__all__ = ["Batch", "FilterTensors", "PenaltyTensors", "SamplingTensors"]


def _column(parameters: list[SamplingParameters], name: str, device: torch.device) -> torch.Tensor:
    """Return float32 ``[n, 1]``."""
    values = [float(getattr(item, name)) for item in parameters]
    return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)


class FilterTensors:
    """What the rows keep that leave tokens out, ``[n, 1]`` each.

    Args:
        top_k: int64; larger than any vocabulary where all are kept.
        top_p: float32; infinite where all are kept.
        min_p: float32.
    """

    def __init__(self, top_k: torch.Tensor, top_p: torch.Tensor, min_p: torch.Tensor) -> None:
        self.top_k = top_k
        self.top_p = top_p
        self.min_p = min_p

    def of(self, rows: torch.Tensor) -> FilterTensors:
        """Return the filters of ``rows`` alone."""
        return FilterTensors(self.top_k[rows], self.top_p[rows], self.min_p[rows])


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
        plain = [place for place, item in enumerate(drawing) if not item.filters]
        filtered = [place for place, item in enumerate(drawing) if item.filters]
        self.plain = torch.tensor(plain, dtype=torch.int64, device=device)
        """Places in ``rows`` of those that may draw any token."""
        self.filtered = torch.tensor(filtered, dtype=torch.int64, device=device)
        """Places in ``rows`` of those that leave tokens out."""
        some = [drawing[place] for place in filtered]
        # No vocabulary is larger than int64 counts.
        kept = [item.top_k or torch.iinfo(torch.int64).max for item in some]
        top_p = _column(some, "top_p", device)
        self.filters = FilterTensors(
            torch.tensor(kept, dtype=torch.int64, device=device).unsqueeze(1),
            top_p.masked_fill(top_p >= 1, torch.inf),
            _column(some, "min_p", device),
        )
        """Of the rows ``filtered``."""


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
