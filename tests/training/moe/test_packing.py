"""What fills packs up is neither a token that was trained on nor one that experts got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_mixtures import save_tiny_mixture
from tests.training.moe.mixtures import expert_log
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.metrics import read_metrics
from training.moe.balance import load_balance_loss
from training.run import train


def test_packed_rows_count_as_padded_ones(tmp_path: Path) -> None:
    model = save_tiny_mixture(tmp_path / "model", "mixtral")
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(5))
    seen: list[Any] = []
    for packing in (False, True):
        output = tmp_path / f"packing-{packing}"
        rows = {"packing": packing, "max_length": 64}
        # Every row in the one step: the last pack has room left.
        train(tiny_config(model, data, output, rows=rows, max_steps=1, batch_size=5, save_steps=1))
        state = json.loads((output / "checkpoints" / "checkpoint-1" / "trainer_state.json").read_text())
        figures = json.loads((output / "data.json").read_text())
        assert state["num_input_tokens_seen"] == figures["training"]["tokens"]
        (row,) = read_metrics(output / "metrics.jsonl")
        seen.append((expert_log(output)[0]["layers"], row["load_balance_loss"], row["loss"]))
    assert seen[0][0] == seen[1][0]
    assert seen[0][1:] == pytest.approx(seen[1][1:], rel=1e-4)


def test_nothing_but_filler_has_no_load() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = load_balance_loss(logits, torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()
