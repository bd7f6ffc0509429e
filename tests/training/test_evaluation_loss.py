"""The evaluation loss is the mean over tokens, whatever the batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.evaluation_loss import TokenMean
from training.metrics import read_metrics
from training.run import train


def test_tokens_count_and_not_batches() -> None:
    mean = TokenMean()
    mean.add(torch.tensor(2.0), torch.tensor([[1, 2, -100, 3]]))
    mean.add(torch.tensor(5.0), torch.tensor([[1, 2, 3, 4], [1, -100, -100, 4]]))
    mean.add(torch.tensor(float("nan")), torch.tensor([[-100, -100]]))  # a rank's filler
    assert mean.result() == pytest.approx((2 * 2.0 + 4 * 5.0) / 6)


def test_it_does_not_hang_on_the_size_of_the_batches(tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows = chat_rows(6)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] *= 1 + number  # the later, the longer
    data, other = (
        write_jsonl(tmp_path / "rows.jsonl", chat_rows(4)),
        write_jsonl(tmp_path / "eval.jsonl", rows),
    )
    found = []
    for size in (1, 4, 6):
        config = tiny_config(
            tiny_llama_dir,
            data,
            tmp_path / str(size),
            max_steps=1,
            batch_size=size,
            learning_rate=1e-9,
            rows={"eval": other},
        )
        train(config)
        found.append(read_metrics(tmp_path / str(size) / "metrics.jsonl")[-1]["eval_loss"])
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-5)
