"""What the slot engine asks of a model: logits for rows of a KV cache that the model keeps."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["Prefixes", "Runner"]


class Runner(Protocol):
    """A model and its KV cache of ``slots`` rows; called by one thread, in inference mode."""

    device: torch.device
    """Where the logits are."""

    vocab_size: int
    """Width of the logits."""

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

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` cached positions of row ``source`` to row ``target``."""


class Prefixes(Protocol):
    """What was computed of prompts before; called by the runner's thread, in inference mode."""

    def load(self, row: int, prompt_ids: list[int]) -> int:
        """Put the known beginning of a prompt into ``row``; return its length, less than the prompt's."""

    def save(self, row: int, prompt_ids: list[int]) -> None:
        """Keep the beginning of the prompt, which ``row`` holds whole."""
