"""The order of rows: balanced where asked for, the same on every rank and after a resume."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from checkpoints.errors import ConfigError, DataError
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.config import SamplingSettings
from training.data.formats import iterate_rows
from training.data.sampling import RowSampler, label_shares
from training.metrics import read_metrics
from training.run import train

LABELS = np.array([0] * 70 + [1] * 20 + [2] * 10, dtype=np.int32)


def drawn(epoch: int = 0, seed: int = 0, **settings: Any) -> list[int]:
    sampler = RowSampler(100, seed, **{"labels": LABELS, "alpha": 0.0, **settings})
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert len(order) == len(sampler)
    return order


def test_without_labels_each_row_comes_once_in_an_epoch() -> None:
    orders = [drawn(epoch, labels=None) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1]
    assert drawn(1, labels=None) == orders[1]
    assert drawn(1, seed=1, labels=None) != orders[1]


def test_every_label_gets_the_same_share() -> None:
    order = drawn()
    assert Counter(LABELS[order].tolist()) == {0: 34, 1: 33, 2: 33}
    repeats = Counter(order)
    assert max(repeats[row] for row in range(70)) == 1  # 34 of 70: none twice
    assert {repeats[row] for row in range(70, 90)} == {1, 2}  # 33 of 20: each once, 13 twice
    assert {repeats[row] for row in range(90, 100)} == {3, 4}
    assert drawn() == order
    assert drawn(epoch=1) != order
    assert drawn(seed=1) != order


def test_alpha_goes_from_equal_shares_to_those_of_the_rows() -> None:
    assert Counter(LABELS[drawn(alpha=1.0)].tolist()) == {0: 70, 1: 20, 2: 10}
    assert label_shares([64, 4], 0.5) == pytest.approx([0.8, 0.2])
    assert label_shares([70, 20, 10], 0.0) == pytest.approx([1 / 3] * 3)


def batches_of(rank: int, ranks: int, epoch: int, skipped: int = 0) -> list[list[int]]:
    """What a rank trains on, through accelerate's own data loader, as the Trainer uses it."""
    sampler = RowSampler(100, 0, labels=LABELS, alpha=0.0)
    loader = prepare_data_loader(
        DataLoader(list(range(100)), batch_size=5, sampler=sampler, collate_fn=torch.tensor),
        num_processes=ranks,
        process_index=rank,
        put_on_device=False,
    )
    if skipped:
        loader = skip_first_batches(loader, skipped)
    loader.set_epoch(epoch)
    sampler.set_epoch(epoch)  # what EpochOrder does
    return [batch.tolist() for batch in loader]


@pytest.mark.parametrize("epoch", [0, 3])
def test_ranks_share_one_order(epoch: int) -> None:
    ranks = [batches_of(rank, 2, epoch) for rank in (0, 1)]
    together = [row for pair in zip(*ranks, strict=True) for batch in pair for row in batch]
    assert together == drawn(epoch)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_epoch_goes_on_where_it_was(ranks: int) -> None:
    assert batches_of(0, ranks, epoch=2, skipped=4) == batches_of(0, ranks, epoch=2)[4:]


def test_labels_are_read_from_the_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "topic": "sea"}, {"text": "b", "topic": 7}, {"text": "c"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = iterate_rows(path, label="topic")
    assert [next(found).label, next(found).label] == ["sea", "7"]
    with pytest.raises(
        DataError, match=r"rows.jsonl:3: data.sampling.by = topic, but the row has None there"
    ):
        next(found)


def test_what_is_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.sampling.alpha = 1.5"):
        SamplingSettings(alpha=1.5)


def test_a_balanced_run_that_was_cut_off_is_the_run_that_was_not(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off in its second epoch, so that order and place in it are both put to the test."""
    rows = [{**row, "topic": "rare" if number < 4 else "common"} for number, row in enumerate(chat_rows(20))]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)

    def config(name: str) -> Any:
        sampling = {"sampling": SamplingSettings(by="topic"), "eval_fraction": 0.1}
        return tiny_config(tiny_llama_dir, data, tmp_path / name, rows=sampling, max_steps=8, save_steps=6)

    import training.run as run

    straight = train(config("straight"))

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_adapter", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config("cut"))
    monkeypatch.undo()
    last = tmp_path / "cut" / "checkpoints" / "checkpoint-8"
    for path in last.iterdir():
        path.unlink()
    resumed = train(config("cut"))

    losses = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("straight", "cut")
    ]
    assert losses[0] == losses[1]
    one, other = (load_file(path / "adapter_model.safetensors") for path in (straight, resumed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    figures = json.loads((tmp_path / "cut" / "data.json").read_text(encoding="utf-8"))
    assert {name: item["share"] for name, item in figures["sampling"].items()} == {"rare": 0.5, "common": 0.5}
    assert sum(item["rows"] for item in figures["sampling"].values()) == figures["training"]["rows"]
