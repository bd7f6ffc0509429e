"""Rows and run settings for the training tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.data.config import DataConfig
from training.methods.lora.config import LoraSettings

CHAT = [
    {"role": "user", "content": "What is the answer?"},
    {"role": "assistant", "content": "The answer is 你好."},
    {"role": "user", "content": "And again?"},
    {"role": "assistant", "content": "The lazy dog."},
]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chat_rows(count: int) -> list[dict[str, Any]]:
    """Small sums: something a tiny model can learn."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"What is {number} + 1?"},
                {"role": "assistant", "content": f"The answer to this question is {number + 1}."},
            ]
        }
        for number in range(count)
    ]


def tiny_config(model: Path, data: Path, output: Path, **overrides: Any) -> TrainConfig:
    """A run of seconds on a tiny model."""
    rows = {"max_length": 128, **overrides.pop("rows", {})}
    settings: dict[str, Any] = {
        "lora": LoraSettings(rank=8, alpha=16),
        "dtype": "fp32",
        "device": "cpu",
        "learning_rate": 1e-2,
        "batch_size": 4,
        "max_steps": 8,
        "warmup_steps": 1,
        "threads": 1,
        **overrides,
    }
    return TrainConfig(model=str(model), data=DataConfig(train=data, **rows), output=output, **settings)
