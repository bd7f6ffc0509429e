"""The native model against the paper: logits, loss and every gradient."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import checkpoints  # noqa: F401  # makes the architecture known
from tests.checkpoints.architectures.published import (
    VOCABULARY,
    published_config,
    published_weights,
    write_published,
)
from tests.checkpoints.architectures.reference import reference_logits, reference_loss

VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "normalized weights, balance over the batch": {"norm_topk_prob": True, "seq_aux": False},
    "grouped queries, no shared experts": {"num_key_value_heads": 2, "n_shared_experts": None},
    "every second layer, none dense first": {"moe_layer_freq": 2, "first_k_dense_replace": 0},
}

# The model's norms and rotary angles are computed in float32 even when it runs in float64.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-5}


def rows(count: int = 2, length: int = 9) -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(3, VOCABULARY) for _ in range(length)] for _ in range(count)]


def load(directory: Path, config: dict[str, Any], dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    if dtype == torch.float64:  # which torch.nn.functional.grouped_mm does not take
        options.setdefault("experts_implementation", "eager")
    write_published(directory, config)
    return AutoModelForCausalLM.from_pretrained(directory, **options).to(dtype).eval()


def wide_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in published_weights(config).items()}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_the_papers(variant: str, dtype: torch.dtype, tmp_path: Path) -> None:
    config = published_config(**VARIANTS[variant])
    model = load(tmp_path / "model", config, dtype)
    batch = rows()
    with torch.inference_mode():
        found = model(torch.tensor(batch)).logits.double()
    for ids, logits in zip(batch, found, strict=True):
        expected, _ = reference_logits(wide_weights(config), config, ids)
        assert expected.std() > 0.3  # else anything would be close
        torch.testing.assert_close(logits, expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("experts", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_implementation_computes_the_same(experts: str, attention: str, tmp_path: Path) -> None:
    config = published_config()
    model = load(tmp_path / "model", config, attn_implementation=attention, experts_implementation=experts)
    assert model.config._experts_implementation == experts
    assert model.config._attn_implementation == attention
    assert model._supports_flash_attn
    ids = rows(1, 17)[0]
    with torch.inference_mode():
        found = model(torch.tensor([ids])).logits[0].double()
    expected, _ = reference_logits(wide_weights(config), config, ids)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_the_comparison_notices_a_wrong_expert(tmp_path: Path) -> None:
    config = published_config()
    model = load(tmp_path / "model", config)
    experts = model.model.layers[2].mlp.experts
    with torch.no_grad():
        experts.down_proj[[0, 1]] = experts.down_proj[[1, 0]]
        found = model(torch.tensor([rows(1)[0]])).logits[0].double()
    expected, _ = reference_logits(wide_weights(config), config, rows(1)[0])
    assert (found - expected).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_are_the_papers(variant: str, dtype: torch.dtype, tmp_path: Path) -> None:
    config = published_config(**VARIANTS[variant])
    model = load(tmp_path / "model", config, dtype).train()
    batch = rows()
    ids = torch.tensor(batch)
    output = model(ids, labels=ids)
    output.loss.backward()

    weights = wide_weights(config)
    for value in weights.values():
        value.requires_grad_(True)
    entropy, balance = reference_loss(weights, config, batch)
    loss = entropy + config["aux_loss_alpha"] * balance
    loss.backward()

    torch.testing.assert_close(output.aux_loss.double(), balance, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.loss.double(), loss, atol=1e-5, rtol=0)
    found = published_gradients(model)
    assert found.keys() == weights.keys()
    for name, gradient in found.items():
        expected = weights[name].grad
        if expected is None:  # an expert that no token chose
            expected = torch.zeros_like(weights[name])
        torch.testing.assert_close(gradient.double(), expected, atol=TOLERANCE[dtype], rtol=1e-3, msg=name)
    gates = [weights[name].grad for name in weights if name.endswith("mlp.gate.weight")]
    assert all(gate is not None and gate.abs().max() > 1e-4 for gate in gates)


def test_the_balance_loss_is_for_training_alone(tmp_path: Path) -> None:
    config = published_config()
    model = load(tmp_path / "model", config)
    ids = torch.tensor(rows())
    with torch.inference_mode():
        evaluated = model(ids, labels=ids)
        trained = model.train()(ids, labels=ids)
    entropy, balance = reference_loss(wide_weights(config), config, rows())
    assert evaluated.aux_loss is None
    assert float(evaluated.loss) == pytest.approx(float(entropy), abs=1e-5)
    assert float(trained.loss) == pytest.approx(float(entropy + 0.1 * balance), abs=1e-5)
    model.config.aux_loss_alpha = 0
    with torch.inference_mode():
        assert float(model(ids, labels=ids).loss) == pytest.approx(float(entropy), abs=1e-5)


def published_gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients by published name: fused experts taken apart."""
    gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("experts.gate_up_proj"):
            for expert, gradient in enumerate(parameter.grad):
                prefix = f"{name.removesuffix('gate_up_proj')}{expert}"
                gate, up = gradient.chunk(2)
                gradients[f"{prefix}.gate_proj.weight"] = gate
                gradients[f"{prefix}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            for expert, gradient in enumerate(parameter.grad):
                gradients[f"{name.removesuffix('down_proj')}{expert}.down_proj.weight"] = gradient
        else:
            gradients[name] = parameter.grad
    return gradients
