"""The figures of a run: what packing saves is what the collators really make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.collator import PaddingCollator
from training.data.encoding import Encoded
from training.data.packing import Pack, PackingCollator, pack_lengths
from training.data.summary import packing_figures
from training.run import train


def test_positions_are_those_of_the_batches() -> None:
    chance = np.random.default_rng(1)
    lengths = chance.integers(2, 100, 300)
    rows = [Encoded([5] * length, [5] * length) for length in lengths.tolist()]
    packs = pack_lengths(lengths.tolist(), 128)
    figures = packing_figures(lengths, packs=len(packs), length=128, batch_size=8, seed=0)

    order = np.random.default_rng(0).permutation(300).tolist()
    padded = [
        PaddingCollator(0)([rows[row] for row in order[start : start + 8]]) for start in range(0, 300, 8)
    ]
    assert figures["positions_padded"] == sum(batch["input_ids"].numel() for batch in padded)
    packed = PackingCollator(0)([Pack([rows[row] for row in pack]) for pack in packs])
    assert packed["input_ids"].numel() == figures["positions_packed"]
    assert figures["saved"] > 0.3  # lengths of 2 to 99: half of a padded batch is empty
    assert figures["padding_packed"] < 0.03 < figures["padding_padded"]


def test_a_run_writes_its_figures(tiny_llama_dir: Path, tmp_path: Path) -> None:
    data = write_jsonl(
        tmp_path / "rows.jsonl", [*chat_rows(20), {"messages": [*chat_rows(1)[0]["messages"]]}]
    )
    settings = {"packing": True, "max_length": 256, "eval_fraction": 0.2}
    config = tiny_config(tiny_llama_dir, data, tmp_path / "run", rows=settings, max_steps=1, batch_size=1)
    train(config)
    figures = json.loads((tmp_path / "run" / "data.json").read_text(encoding="utf-8"))
    assert figures["files"][0]["rows"] == 21
    assert figures["read"] == {"rows_read": 21, "cut": 0, "dropped": 0, "also_evaluated": 0}
    assert figures["training"]["rows"] + figures["evaluation"]["rows"] == 21
    assert figures["packing"]["packs"] > 1
    assert figures["sampling"] is None
