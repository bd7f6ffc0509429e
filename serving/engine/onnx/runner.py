"""Runs the ONNX decoder over rows of a preallocated KV cache, without copying a key or a value.

The graph's attention writes new keys and values into the cache it is given, when its outputs
``present.*`` are bound to the memory of its inputs ``past.*``. Rows ``0..n-1`` of
``[slots, kv_heads, max_context, head_dim]`` are one block of memory, and so is any single row.
Each row attends to its own length only, so slots of different lengths cost no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from serving.engine.slots.runner import Chunk, compute_in_turn

__all__ = ["OnnxRunner"]


class OnnxRunner:
    """Forward passes of one session and the KV cache of all slots.

    Args:
        session: an ``onnxruntime.InferenceSession`` of an exported decoder.
        slots: rows of the KV cache.
        max_context: positions of a row.
    """

    device = torch.device("cpu")
    mixes = False

    def __init__(self, session: Any, slots: int, max_context: int) -> None:
        self._session = session
        self.vocab_size = int(session.get_outputs()[0].shape[-1])
        self._cache = {
            item.name: torch.zeros((slots, item.shape[1], max_context, item.shape[3]))
            for item in session.get_inputs()
            if item.name.startswith("past.")
        }
        self._steps: dict[int, _Pass] = {}

    def prefill(self, row: int, token_ids: list[int], start: int) -> torch.Tensor:
        """Compute ``token_ids`` of one prompt at positions ``start``...; return float32 ``[1, vocab]``."""
        return self._prompt(row, token_ids, start, [len(token_ids) - 1])

    def prompt_logits(self, token_ids: list[int]) -> torch.Tensor:
        """Compute a whole prompt in row 0; return float32 ``[tokens, vocab]``."""
        return self._prompt(0, token_ids, 0, list(range(len(token_ids))))

    def decode(self, token_ids: list[int], positions: list[int]) -> torch.Tensor:
        """Compute one token in each of rows ``0..n-1``; return float32 ``[n, vocab]``."""
        rows = len(token_ids)
        if rows not in self._steps:
            self._steps[rows] = _Pass(self._session, self._rows(0, rows), (rows, 1), 1, self.vocab_size)
        step = self._steps[rows]
        step.input_ids[:, 0] = token_ids
        step.position_ids[:, 0] = positions
        return step.run()[:, 0]

    def compute(self, token_ids: list[int], positions: list[int], chunks: Sequence[Chunk]) -> torch.Tensor:
        """See ``Runner.compute``: one after the other, as the graph computes rows of equal length."""
        return compute_in_turn(self, token_ids, positions, chunks)

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` cached positions of row ``source`` to row ``target``."""
        for cache in self._cache.values():
            cache[target, :, :length] = cache[source, :, :length]

    def _prompt(self, row: int, token_ids: list[int], start: int, wanted: list[int]) -> torch.Tensor:
        length = len(token_ids)
        step = _Pass(self._session, self._rows(row, 1), (1, length), len(wanted), self.vocab_size)
        step.input_ids[0] = token_ids
        step.position_ids[0] = np.arange(start, start + length)
        step.logit_positions[:] = wanted
        return step.run()[0]

    def _rows(self, first: int, count: int) -> dict[str, torch.Tensor]:
        return {name: cache[first : first + count] for name, cache in self._cache.items()}


class _Pass:
    """One shape of forward pass, its inputs and logits in memory of ours, bound once.

    Args:
        session: the decoder.
        cache: rows of the KV cache by input name, each contiguous.
        shape: rows and tokens.
        wanted: how many of the tokens get logits.
        vocab_size: width of the logits.
    """

    def __init__(
        self,
        session: Any,
        cache: dict[str, torch.Tensor],
        shape: tuple[int, int],
        wanted: int,
        vocab_size: int,
    ) -> None:
        self.input_ids = np.zeros(shape, dtype=np.int64)
        self.position_ids = np.zeros(shape, dtype=np.int64)
        self.logit_positions = np.zeros(wanted, dtype=np.int64)
        self._logits = torch.empty((shape[0], wanted, vocab_size))
        self._cache = cache
        self._session = session
        self._binding = session.io_binding()
        for name in ("input_ids", "position_ids", "logit_positions"):
            array = getattr(self, name)
            self._binding.bind_input(name, "cpu", 0, np.int64, array.shape, array.ctypes.data)
        for name, rows in cache.items():
            place = ("cpu", 0, np.float32, tuple(rows.shape), rows.data_ptr())
            self._binding.bind_input(name, *place)
            self._binding.bind_output(name.replace("past.", "present."), *place)
        self._binding.bind_output(
            "logits", "cpu", 0, np.float32, tuple(self._logits.shape), self._logits.data_ptr()
        )

    def run(self) -> torch.Tensor:
        """Compute; return float32 ``[rows, wanted, vocab]``, overwritten by the next run."""
        self._session.run_with_iobinding(self._binding)
        return self._logits
