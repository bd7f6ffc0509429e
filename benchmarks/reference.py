"""Whether a text is the one the checkpoint writes in fp32, greedily.

The reference model reads prompt and answer at once: the answer is its own exactly where each token is
the best one after what stands before it. That is ``generate``'s text by induction, for the price of
one pass. A token within 1e-3 of the best logit counts as the best: fp32 itself differs by that much
between batch sizes. Peers force lengths in two ways, going on after the end token or forbidding it; a
text that follows either throughout is right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import CellStore
from benchmarks.workload import Item

__all__ = ["Reference"]

GAP = 1e-3


class Reference:
    """The checkpoint in fp32, through transformers; loaded when it is needed.

    Args:
        checkpoint: its directory.
        stop_ids: its end tokens.
        store: keeps verdicts.
    """

    def __init__(self, checkpoint: Path, stop_ids: Sequence[int], store: CellStore) -> None:
        self._checkpoint = checkpoint
        self._stop_ids = list(stop_ids)
        self._store = store
        self._model: Any = None
        self._new: dict[str, int] = {}

    def agreement(self, items: Sequence[Item], token_ids: dict[str, list[int]]) -> tuple[float, float]:
        """Return the share of requests whose text is the reference's, and the share of tokens.

        Tokens count up to the first that differs: from there on the texts are different texts.
        """
        by_index = {str(item.index): item for item in items}
        right = {index: self._count_right(by_index[index], tokens) for index, tokens in token_ids.items()}
        whole = sum(right[index] == len(tokens) for index, tokens in token_ids.items())
        return whole / len(token_ids), sum(right.values()) / sum(map(len, token_ids.values()))

    def keep(self) -> None:
        """Write the verdicts to the store."""
        self._store.put_verdicts(self._new)
        self._new = {}

    def _count_right(self, item: Item, tokens: list[int]) -> int:
        key = hashlib.sha256(json.dumps([item.prompt_ids, tokens]).encode()).hexdigest()[:20]
        known = self._store.verdict(key)
        if known is None:
            known = self._new.get(key)
        if known is None:
            known = self._new[key] = self._compare(item.prompt_ids, tokens)
        return known

    def _compare(self, prompt: list[int], tokens: list[int]) -> int:
        import torch

        if self._model is None:
            from checkpoints.loading import load_model

            self._model = load_model(self._checkpoint, dtype="fp32", device="cpu")
        with torch.inference_mode():
            logits = self._model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
        forbidding = logits.clone()
        forbidding[:, self._stop_ids] = -torch.inf
        chosen = torch.tensor(tokens)[:, None]
        right = [
            choice.amax(dim=1) - choice.gather(1, chosen)[:, 0] <= GAP for choice in (logits, forbidding)
        ]
        return max(int(one.cumprod(dim=0).sum()) for one in right)
