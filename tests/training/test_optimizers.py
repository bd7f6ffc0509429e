"""Optimizers by name: what they are for the Trainer, and where they cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from transformers.training_args import OptimizerNames

from checkpoints.errors import ConfigError
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import TrainConfig
from training.optimizers import OPTIMIZERS, check_optimizer
from training.run import train


def test_every_name_has_an_optimizer_that_the_trainer_knows() -> None:
    assert set(get_args(get_type_hints(TrainConfig)["optimizer"])) == set(OPTIMIZERS)
    assert {optimizer.trainer_name for optimizer in OPTIMIZERS.values()} <= {
        name.value for name in OptimizerNames
    }


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_a_gpu_optimizer_is_refused_on_a_cpu_before_anything_is_written(
    name: str, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    with pytest.raises(ConfigError, match=rf"optimizer = {name} needs a CUDA GPU.*device = cpu.*adamw"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", optimizer=name))
    assert not (tmp_path / "run").exists()


def test_without_a_gpu_auto_is_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = tiny_config(tmp_path, tmp_path / "r", tmp_path / "run", optimizer="adamw_8bit", device="auto")
    with pytest.raises(ConfigError, match="torch finds none here"):
        check_optimizer(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_optimizer(config)
