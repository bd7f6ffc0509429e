"""Warm-up, balance and capacity in a run: what the log says is what happens, resumed or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.prompt import PromptEncoder
from checkpoints.routers import find_routers
from tests.tiny_mixtures import MIXTURES, save_tiny_mixture
from tests.training.moe.mixtures import expert_log, routers_of, train_and, train_until
from tests.training.moe.reference import switch_loss
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import TrainConfig
from training.data.encoding import RowEncoder, encode_rows
from training.data.formats import read_rows
from training.metrics import read_metrics
from training.moe.config import MoeSettings
from training.run import train

ROWS = 8
STEPS, RELEASED = 20, 2  # 10% of the steps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(ROWS))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_mixture(tmp_path_factory.mktemp("base") / "model", "qwen3_moe")


def warmup_config(base: Path, data: Path, output: Path) -> TrainConfig:
    settings = MoeSettings(router="warmup", expert_capacity_factor=1.0)
    return tiny_config(
        base,
        data,
        output,
        moe=settings,
        max_steps=STEPS,
        batch_size=2,
        weight_decay=0.1,
    )


Routers = dict[int, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def run(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Routers]:
    """A run that was never cut off, and its routers after each step."""
    output = tmp_path_factory.mktemp("whole") / "run"
    routers: Routers = {}

    def keep(step: int, model: Any, control: Any) -> None:
        routers[step] = {
            router.name: router.modules[-1].weight.detach().clone() for router in find_routers(model)
        }

    train_and(warmup_config(base, data, output), keep)
    return output, routers


@pytest.fixture(scope="module")
def whole(run: tuple[Path, Routers]) -> Path:
    return run[0]


def test_routers_stand_still_for_a_tenth_of_the_steps_and_the_log_shows_it(
    base: Path, run: tuple[Path, Routers]
) -> None:
    whole, after = run
    rows = read_metrics(whole / "metrics.jsonl")
    expected = [False] * RELEASED + [True] * (STEPS - RELEASED)
    assert [row["routers_trainable"] for row in rows] == expected
    assert [row["routers_trainable"] for row in expert_log(whole)] == expected
    before = routers_of(load_model(base, dtype="fp32").state_dict())
    assert len(before) == 2
    for step in range(1, STEPS + 1):
        for name, weight in after[step].items():
            assert torch.equal(weight, before[f"{name}.weight"]) == (step <= RELEASED)


def test_routers_that_are_held_do_not_count_for_clipping(
    base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    config = warmup_config(base, data, tmp_path / "run")
    train(replace(config, moe=replace(config.moe, router="frozen"), max_steps=RELEASED + 1))
    frozen, held = (read_metrics(run / "metrics.jsonl") for run in (tmp_path / "run", whole))
    assert held[0]["grad_norm"] == pytest.approx(frozen[0]["grad_norm"], rel=1e-6)
    assert held[RELEASED]["grad_norm"] != pytest.approx(frozen[RELEASED]["grad_norm"], rel=1e-6)


def test_what_experts_got_is_logged_by_layer_and_plotted(whole: Path) -> None:
    rows = expert_log(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        assert list(row["layers"]) == ["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]
        for layer in row["layers"].values():
            assert sum(layer["load"]) == pytest.approx(4, abs=1e-2)
            assert 0 < layer["entropy"] <= 1
            # What all experts took is no more than the capacity of each: 1 times the even share, rounded up.
            over = sum(max(0.0, load - 1) for load in layer["load"]) / 4
            assert layer["dropped"] == pytest.approx(over, abs=0.04)
    assert any(layer["dropped"] > 0 for row in rows for layer in row["layers"].values())
    assert (whole / "experts.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("last", [RELEASED - 1, RELEASED + 1])
def test_a_resumed_run_goes_on_right_on_either_side_of_the_release(
    last: int, base: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    config = warmup_config(base, data, tmp_path / "run")
    train_until(config, last + 1)
    assert (tmp_path / "run" / "checkpoints" / f"checkpoint-{last}").exists()
    adapter = train(config)
    assert expert_log(tmp_path / "run") == expert_log(whole)
    one, other = (load_file(run / "adapter_model.safetensors") for run in (adapter, whole / "adapter"))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def decisions(source: Path, data: Path) -> list[list[torch.Tensor]]:
    """Logits and choices of each router for all rows, one after the other and without padding."""
    model, tokenizer = load_model(source, dtype="fp32"), load_tokenizer(source)
    tokens = base_manifest(source, model, tokenizer).tokens
    rows = read_rows(data)
    encoder = RowEncoder(PromptEncoder(tokenizer, tokens), tokens)
    seen: dict[nn.Module, list[tuple[torch.Tensor, ...]]] = {}
    for name, module in model.named_modules():
        if name.endswith(".mlp.gate"):
            seen[module] = []
            module.register_forward_hook(lambda module, inputs, output: seen[module].append(output))
    with torch.no_grad():
        for row in encode_rows(encoder, rows, max_length=128, what="test"):
            model(input_ids=torch.tensor([row.input_ids]))
    return [[torch.cat([output[part] for output in outputs]) for part in (0, 2)] for outputs in seen.values()]


@pytest.mark.parametrize("name", MIXTURES)
def test_the_balance_loss_adds_its_coefficient_times_the_formula_of_switch(
    name: str, data: Path, tmp_path: Path
) -> None:
    """All rows are one batch. DeepSeek-MoE's own balance loss is replaced, not added to."""
    own = {"aux_loss_alpha": 100.0} if name == "deepseek" else {}
    source = save_tiny_mixture(tmp_path / "model", name, **own)
    losses: dict[float, dict[str, Any]] = {}
    for coefficient in (0.0, 0.5):
        run = tmp_path / f"run-{coefficient}"
        moe = MoeSettings(load_balance_coefficient=coefficient)
        train(tiny_config(source, data, run, moe=moe, max_steps=1, batch_size=ROWS))
        (losses[coefficient],) = read_metrics(run / "metrics.jsonl")
    layers = [
        switch_loss(logits, indices, sigmoid=name == "deepseek_v3")
        for logits, indices in decisions(source, data)
    ]
    expected = sum(layers) / len(layers)
    assert expected > 1.01
    assert losses[0.0]["loss"] < 20
    assert losses[0.5]["load_balance_loss"] == pytest.approx(expected, rel=1e-4)
    assert losses[0.5]["loss"] - losses[0.0]["loss"] == pytest.approx(0.5 * expected, rel=1e-3)


def test_the_balance_loss_evens_the_load(base: Path, data: Path, tmp_path: Path) -> None:
    lowest = {}
    for coefficient in (0.0, 1.0):
        run = tmp_path / f"run-{coefficient}"
        moe = MoeSettings(router="trainable", load_balance_coefficient=coefficient)
        train(tiny_config(base, data, run, moe=moe, max_steps=16, batch_size=ROWS))
        lowest[coefficient] = min(
            layer["entropy"] for row in expert_log(run)[-4:] for layer in row["layers"].values()
        )
    assert lowest[1.0] > lowest[0.0]
    assert lowest[1.0] > 0.9


def test_accumulation_takes_the_mean_of_the_balance_losses(base: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moe = MoeSettings(load_balance_coefficient=10.0)
    config = tiny_config(base, data, run, moe=moe, max_steps=1, batch_size=ROWS // 2, gradient_accumulation=2)
    train(config)
    plain = replace(config, output=tmp_path / "plain", moe=MoeSettings(load_balance_coefficient=0.0))
    train(plain)
    (row,), (without,) = (read_metrics(path / "metrics.jsonl") for path in (run, tmp_path / "plain"))
    added = row["loss"] - without["loss"]
    assert added == pytest.approx(10 * row["load_balance_loss"], rel=1e-3)
