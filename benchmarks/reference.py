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
        self._new: dict[str, bool] = {}

    def share_equal(self, items: Sequence[Item], token_ids: dict[str, list[int]]) -> float:
        """Return the share of requests whose text is the reference's."""
        by_index = {str(item.index): item for item in items}
        verdicts = [self._is_equal(by_index[index], tokens) for index, tokens in token_ids.items()]
        return sum(verdicts) / len(verdicts)

    def keep(self) -> None:
        """Write the verdicts to the store."""
        self._store.put_verdicts(self._new)
        self._new = {}

    def _is_equal(self, item: Item, tokens: list[int]) -> bool:
        key = hashlib.sha256(json.dumps([item.prompt_ids, tokens]).encode()).hexdigest()[:20]
        known = self._store.verdict(key)
        if known is None:
            known = self._new.get(key)
        if known is None:
            known = self._new[key] = self._compare(item.prompt_ids, tokens)
        return known

    def _compare(self, prompt: list[int], tokens: list[int]) -> bool:
        import torch

        if self._model is None:
            from transformers import AutoModelForCausalLM

            self._model = AutoModelForCausalLM.from_pretrained(self._checkpoint, dtype=torch.float32).eval()
        with torch.inference_mode():
            logits = self._model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
        forbidding = logits.clone()
        forbidding[:, self._stop_ids] = -torch.inf
        chosen = torch.tensor(tokens)[:, None]
        return any(
            bool((choice.amax(dim=1) - choice.gather(1, chosen)[:, 0] <= GAP).all())
            for choice in (logits, forbidding)
        )
