"""Full fine-tuning in bf16: the experts of a mixture multiply in bf16, and are trained in fp32."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.tiny_mixtures import build_tiny_mixture, save_tiny_mixture
from tests.training.moe.mixtures import IDS
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.moe.autocast import autocast_experts
from training.run import train

BF16 = {(torch.bfloat16, torch.bfloat16)}


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> set[tuple[torch.dtype, torch.dtype]]:
    """The precisions that experts are multiplied in where gradients are wanted: of inputs and of weights."""
    seen = set()
    multiply = functional.grouped_mm

    def spy(inputs: Tensor, weights: Tensor, **named: Any) -> Tensor:
        if torch.is_grad_enabled():  # before the first step, a run tries its loss out in fp32
            seen.add((inputs.dtype, weights.dtype))
        return multiply(inputs, weights, **named)

    monkeypatch.setattr(functional, "grouped_mm", spy)
    return seen


def gradients(model: Any, *, bf16: bool) -> dict[str, Tensor]:
    model.zero_grad()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        autocast_experts(model) if bf16 else nullcontext(),
    ):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", ["deepseek", "deepseek_v2", "qwen3_moe", "mixtral"])
def test_experts_multiply_in_bf16_and_their_gradients_are_fp32(
    name: str, products: set[tuple[torch.dtype, torch.dtype]]
) -> None:
    model = build_tiny_mixture(name).train()
    found = gradients(model, bf16=True)
    assert products == BF16
    expected = gradients(model, bf16=False)
    assert found.keys() == expected.keys()
    for weight in (name for name in expected if ".experts." in name):
        assert found[weight].dtype == torch.float32
        assert functional.cosine_similarity(found[weight].flatten(), expected[weight].flatten(), dim=0) > 0.98
    assert not any("gate_up_proj" in vars(module) or "forward" in vars(module) for module in model.modules())


def test_a_run_does_so(tmp_path: Path, products: set[tuple[torch.dtype, torch.dtype]]) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    base = save_tiny_mixture(tmp_path / "base", "deepseek")
    train(tiny_config(base, data, tmp_path / "run", method="full", dtype="bf16", max_steps=1))
    assert products == BF16
