"""What the slot engine asks of a model: logits for rows of a KV cache that the model keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["Chunk", "Prefixes", "Runner", "compute_in_turn"]


@dataclass(frozen=True)
class Chunk:
    """A part of one prompt that a pass computes."""

    row: int
    """Row of the cache."""

    token_ids: list[int]
    """Its tokens."""

    start: int
    """Position of its first token; positions before it are in the cache already."""


class Runner(Protocol):
    """A model and its KV cache of ``slots`` rows; called by one thread, in inference mode."""

    device: torch.device
    """Where the logits are."""

    vocab_size: int
    """Width of the logits."""

    mixes: bool
    """Whether ``compute`` takes less time for tokens and chunks together than for one after the other."""

    def prefill(self, row: int, token_ids: list[int], start: int) -> torch.Tensor:
        """Compute a chunk of one prompt.

        Args:
            row: row of the cache.
            token_ids: the chunk.
            start: position of its first token; positions before it are in the cache already.

        Returns:
            float32 ``[1, vocab]``: logits after the chunk's last token. The caller may change them.
        """

    def decode(self, token_ids: list[int], positions: list[int]) -> torch.Tensor:
        """Compute one token in each of rows ``0..n-1``.

        Args:
            token_ids: one token per row.
            positions: its position in its row.

        Returns:
            float32 ``[n, vocab]``. The caller may change them.
        """

    def compute(self, token_ids: list[int], positions: list[int], chunks: Sequence[Chunk]) -> torch.Tensor:
        """Compute what ``decode`` and ``prefill`` do, where ``mixes`` in one pass.

        Args:
            token_ids: as in ``decode``; may be empty where there are chunks.
            positions: as in ``decode``.
            chunks: of prompts in rows behind the decoding ones; may be empty where there are tokens.

        Returns:
            float32 ``[n + chunks, vocab]``, those of the decoding rows first. The caller may change them.
        """

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` cached positions of row ``source`` to row ``target``."""


class Prefixes(Protocol):
    """What was computed of prompts before; called by the runner's thread, in inference mode."""

    def load(self, row: int, prompt_ids: list[int]) -> int:
        """Put the known beginning of a prompt into ``row``; return its length, less than the prompt's."""

    def save(self, row: int, prompt_ids: list[int]) -> None:
        """Keep the beginning of the prompt, which ``row`` holds whole."""


def compute_in_turn(
    runner: Runner, token_ids: list[int], positions: list[int], chunks: Sequence[Chunk]
) -> torch.Tensor:
    """Do what ``Runner.compute`` does in a pass for the tokens and one for each chunk."""
    logits = [runner.decode(token_ids, positions)] if token_ids else []
    logits += [runner.prefill(chunk.row, chunk.token_ids, chunk.start) for chunk in chunks]
    return logits[0] if len(logits) == 1 else torch.cat(logits)
