"""Packing: little is empty, and no row knows of the others it shares a sequence with."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import ConfigError
from tests.tiny_mixtures import build_tiny_mixture
from tests.tiny_models import build_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.encoding import IGNORED, Encoded
from training.data.packing import (
    BatchCollator,
    Pack,
    PackingCollator,
    check_packing,
    pack_lengths,
    pack_rows,
)
from training.data.sampling import RowSampler
from training.metrics import read_metrics
from training.run import train


def rows_of(lengths: list[int], seed: int = 0) -> list[Encoded]:
    chance = random.Random(seed)
    rows = []
    for length in lengths:
        ids = [chance.randrange(5, 320) for _ in range(length)]
        rows.append(Encoded(ids, [IGNORED] * (length // 3) + ids[length // 3 :]))
    return rows


def test_all_rows_are_in_and_no_pack_is_too_long() -> None:
    chance = random.Random(1)
    lengths = [chance.randrange(2, 100) for _ in range(300)]
    packs = pack_lengths(lengths, 128)
    assert sorted(row for pack in packs for row in pack) == list(range(300))
    assert max(sum(lengths[row] for row in pack) for pack in packs) <= 128
    assert sum(lengths) / (128 * len(packs)) > 0.97
    assert packs == pack_lengths(lengths, 128)


def test_each_row_goes_where_it_leaves_the_least_room() -> None:
    assert pack_lengths([6, 5, 4, 3, 7, 2], 10) == [[4, 3], [0, 2], [1, 5]]


def test_positions_begin_anew_and_first_tokens_are_not_learned() -> None:
    rows = rows_of([4, 3, 2])
    batch = PackingCollator(pad_id=7)([Pack(rows[:2]), Pack(rows[2:])])
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4]]
    assert batch["input_ids"][1].tolist() == [*rows[2].input_ids, 7, 7, 7, 7, 7]
    assert batch["labels"][0, 4] == IGNORED
    assert batch["labels"][1].tolist() == [IGNORED, rows[2].labels[1], *[IGNORED] * 5]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gradients_are_those_of_the_rows_one_by_one(
    tiny_tokenizer: PreTrainedTokenizerFast, attention: str
) -> None:
    rows = rows_of([9, 17, 5, 12])
    count = sum(row.trained_tokens for row in rows)
    gradients = []
    for packs in ([Pack(rows)], [Pack([row]) for row in rows]):
        model = build_tiny_llama(tiny_tokenizer)
        model.set_attn_implementation(attention)
        for pack in packs:
            batch = PackingCollator(0)([pack])
            model(**batch, num_items_in_batch=count, use_cache=False).loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek", "deepseek_v2", "deepseek_v3"])
def test_models_that_keep_rows_apart_pass(name: str) -> None:
    check_packing(build_tiny_mixture(name), rows_of([20, 30, 25]), 0)


def test_a_model_that_does_not_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_llama(tiny_tokenizer, initializer_range=0.5)
    forward = model.forward

    def blind(position_ids: torch.Tensor, **batch: Any) -> object:
        return forward(**batch)  # positions go on, so all is one text

    model.forward = blind  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"data\.packing is true, but this model lets packed rows see"):
        check_packing(model, rows_of([20, 30, 25]), 0)


def test_single_rows_are_padded_as_before() -> None:
    batch = BatchCollator(0)(rows_of([4, 9]))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["attention_mask"].sum() == 13


def test_a_packed_run_learns_the_same_rows_in_fewer_steps(tiny_llama_dir: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(24))
    runs = {}
    for packing in (False, True):
        config = tiny_config(
            tiny_llama_dir,
            data,
            tmp_path / f"run-{packing}",
            rows={"packing": packing, "max_length": 256, "eval_fraction": 0.25},
            max_steps=None,
            epochs=6,
            batch_size=1 if packing else 4,
        )
        train(config)
        runs[packing] = read_metrics(tmp_path / f"run-{packing}" / "metrics.jsonl")
    assert len(runs[True]) < len(runs[False])
    assert runs[True][-1]["eval_loss"] < 0.8 * runs[True][0]["loss"]


def test_a_packed_run_has_the_losses_of_the_padded_one(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """Every step is all rows, so that their order makes no difference."""
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(24))
    losses, weights = [], []
    for packing in (False, True):
        output = tmp_path / f"run-{packing}"
        rows = {"packing": packing, "max_length": 256}
        settings = {"rows": rows, "max_steps": 5, "batch_size": 24, "save_steps": 100}
        adapter = train(tiny_config(tiny_llama_dir, data, output, **settings))
        losses.append([row["loss"] for row in read_metrics(output / "metrics.jsonl")])
        weights.append(load_file(adapter / "adapter_model.safetensors"))
        packs = json.loads((output / "data.json").read_text(encoding="utf-8"))["packing"]
        assert packing == (packs is not None and 1 < packs["packs"] < 24)
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-4, rtol=1e-3)


def test_balanced_rows_are_drawn_first_and_then_packed() -> None:
    labels = np.array([0] * 9 + [1] * 3, dtype=np.int32)
    lengths = np.arange(1, 13, dtype=np.int64)
    packs = pack_rows(lengths, 20, RowSampler(12, 0, labels=labels, alpha=0.0))
    drawn = [row for pack in packs for row in pack]
    assert sorted(drawn) == sorted(RowSampler(12, 0, labels=labels, alpha=0.0))
    assert Counter(labels[drawn].tolist()) == {0: 6, 1: 6}
    assert all(lengths[pack].sum() <= 20 for pack in packs)
    assert pack_rows(lengths, 20) == pack_lengths(lengths.tolist(), 20)
