"""A run on packed experts that was cut off goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.tiny_mixtures import save_tiny_mixture
from tests.training.moe.mixtures import train_until
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import TrainConfig
from training.methods.lora.config import LoraSettings
from training.moe.config import MoeSettings
from training.run import train


def test_lora_on_packed_experts_and_trained_routers_are_resumed(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(8))
    base = save_tiny_mixture(tmp_path / "base", "deepseek")

    def config(name: str) -> TrainConfig:
        return tiny_config(
            base,
            data,
            tmp_path / name,
            method="qlora",
            lora=LoraSettings(rank=4, experts=True),
            moe=MoeSettings(router="trainable"),
            max_steps=4,
        )

    straight = train(config("straight"))
    train_until(config("cut"), 3)
    assert not (tmp_path / "cut" / "adapter").exists()
    resumed = train(config("cut"))
    one, other = (load_file(path / "adapter_model.safetensors") for path in (straight, resumed))
    assert one.keys() == other.keys()
    assert any(".experts." in name for name in one)
    assert any(name.endswith("mlp.gate.weight") for name in one)
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name
