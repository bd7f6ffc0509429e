"""Every recipe: the command line takes it, its model can be built, and its memory figure is the estimate.

``model_configs`` holds the fields that matter of the ``config.json`` that is published with each model, typed
in by hand; the sizes that follow from them are the ones that the models are known by.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from checkpoints.sizes import parameter_count
from training.config import TrainConfig
from training.dry_run import row_length
from training.memory_estimate import estimate_memory
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

ROOT = Path(__file__).parents[2]
CONFIGS = Path(__file__).parent / "model_configs"
RECIPES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "recipes").rglob("*.yaml")
    if path.parent.name != "accelerate"  # how to launch, not what to train
)
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
_GIB = 1024**3


def load(recipe: str) -> TrainConfig:
    config, _ = parse_command(COMMANDS["train"], ["--config", str(ROOT / recipe)])
    assert isinstance(config, TrainConfig)
    return config


def empty(recipe: str) -> Any:
    """The recipe's model on the meta device."""
    path = CONFIGS / f"{Path(recipe).parent.name}.json"
    assert path.is_file(), f"add the model's config.json as {path}"
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))


def header(recipe: str) -> str:
    return (ROOT / recipe).read_text(encoding="utf-8").split("\nmodel:")[0]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_header_has_the_command_and_the_memory(recipe: str) -> None:
    assert f"trimaran train --config {recipe}\n" in header(recipe)
    config = replace(load(recipe), dtype="bf16")
    base = empty(recipe)
    total = estimate_memory(config, base, row_length(config, base)).total / _GIB
    stated = re.search(r"Memory: about ([\d.]+) GiB", header(recipe))
    assert stated is not None, f"say in the header: Memory: about {total:.1f} GiB"
    assert float(stated[1]) == pytest.approx(total, rel=0.02, abs=0.06)
    assert f"| `{recipe}` | {stated[1]} |" in PAGE


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_rows_and_output_are_where_it_says(recipe: str) -> None:
    config = load(recipe)
    assert all((ROOT / path).is_file() for path in config.data.train_files)
    assert config.output == Path("out") / f"{Path(recipe).parent.name}-{Path(recipe).stem}"
    assert not config.output.is_absolute()


SIZES = {
    "deepseek-7b": 6_910_365_696,
    "deepseek-moe-16b": 16_375_728_128,
    "deepseek-v2-lite": 15_706_484_224,
    "r1-distill-qwen-1.5b": 1_777_088_000,
    "smollm2-135m": 134_515_008,
}
"""What the models are known by: 7B, 16.4B, 15.7B, 1.78B, 135M."""


def test_the_configs_are_of_the_sizes_they_are_known_by() -> None:
    names = sorted({Path(recipe).parent.name for recipe in RECIPES})
    assert {name: parameter_count(empty(f"recipes/{name}/lora.yaml")) for name in names} == SIZES
