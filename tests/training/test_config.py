"""Settings: what is out of range or clashes is named, with its value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import ConfigError
from training.config import TrainConfig
from training.data.config import DataConfig
from training.methods.lora.config import LoraSettings


def config(**overrides: Any) -> TrainConfig:
    return TrainConfig(model="m", data=DataConfig(train=Path("a.jsonl")), output=Path("out"), **overrides)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("learning_rate", 10.0),
        ("batch_size", 0),
        ("gradient_accumulation", 0),
        ("epochs", 0.0),
        ("max_steps", 0),
        ("save_steps", 0),
        ("threads", 0),
        ("max_grad_norm", -1.0),
        ("weight_decay", -0.1),
        ("warmup_ratio", 1.0),
        ("warmup_steps", -1),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name} = {value}: must be "):
        config(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("rank", 0), ("alpha", 0.0), ("alpha", -1.0), ("dropout", 1.0), ("dropout", -0.1)]
)
def test_a_lora_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"lora\.{name} = {value}: must be "):
        LoraSettings(**{name: value})  # type: ignore[arg-type]


def test_no_target_modules_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"lora\.target_modules is empty"):
        LoraSettings(target_modules=[])


def test_an_unknown_method_lists_the_methods() -> None:
    with pytest.raises(ConfigError, match=r"method = 'dora' is unknown; the methods are: .*lora.*qlora"):
        config(method="dora")


def test_qlora_is_lora_on_an_nf4_base() -> None:
    made = config(method="qlora")
    assert (made.method, made.base_quantization) == ("lora", "nf4")


def test_double_quantization_needs_a_quantized_base() -> None:
    with pytest.raises(ConfigError, match="double_quantization needs base_quantization"):
        config(double_quantization=True)


def test_two_kinds_of_warm_up_clash() -> None:
    with pytest.raises(ConfigError, match=r"warmup_ratio = 0.1 and warmup_steps = 5 clash"):
        config(warmup_ratio=0.1, warmup_steps=5)


def test_an_eval_file_and_an_eval_fraction_clash() -> None:
    with pytest.raises(ConfigError, match=r"data.eval = e.jsonl and data.eval_fraction = 0.1 clash"):
        DataConfig(train=Path("a.jsonl"), eval=Path("e.jsonl"), eval_fraction=0.1)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_eval_fraction_out_of_range(value: float) -> None:
    with pytest.raises(ConfigError, match=r"data.eval_fraction = "):
        DataConfig(train=Path("a.jsonl"), eval_fraction=value)


def test_the_settings_import_nothing_heavy() -> None:
    code = "import sys, training.config; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_the_recipes_are_settings_we_have(name: str) -> None:
    import yaml

    path = Path(__file__).parents[2] / "recipes" / "smollm2-135m" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert f"trimaran train --config recipes/smollm2-135m/{name}.yaml" in text.split("\nmodel:")[0]
    settings = yaml.safe_load(text)
    data, lora = DataConfig(**settings.pop("data")), LoraSettings(**settings.pop("lora"))
    made = TrainConfig(data=data, lora=lora, **settings)
    assert made.base_quantization == ("nf4" if name == "qlora" else None)
