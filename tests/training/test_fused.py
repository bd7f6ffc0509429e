"""The fused layers: the same loss and the same gradients as the modelling code, step by step."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.fused.apply import fused_layers
from training.fused.gated_mlp import gated_down, gated_product
from training.fused.lora_linear import LoraParts, lora_linear
from training.fused.rms_norm import rms_norm
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method
from training.run import train

SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def parts_of(into: int, out: int, *, dropout: float = 0.0, bias: bool = True) -> LoraParts:
    def make(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    return LoraParts(
        make(out, into), make(out) if bias else None, make(3, into).requires_grad_(),
        make(out, 3).requires_grad_(), scaling=1.7, dropout=dropout,
    )  # fmt: skip


def step_by_step(inputs: Tensor, parts: LoraParts, keep: Tensor | None) -> Tensor:
    seen = inputs if keep is None else inputs * keep / (1 - parts.dropout)
    return functional.linear(inputs, parts.weight, parts.bias) + parts.scaling * (
        seen @ parts.down.T @ parts.up.T
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_with_lora(bias: bool, dropout: float) -> None:
    torch.manual_seed(0)
    parts = parts_of(5, 4, dropout=dropout, bias=bias)
    inputs = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(2, 7, 4, dtype=torch.float64)
    asked = [inputs, parts.down, parts.up]
    torch.manual_seed(1)
    keep = parts.dropped(inputs.reshape(-1, 5))
    expected = step_by_step(inputs, parts, None if keep is None else keep.view(inputs.shape))
    torch.manual_seed(1)
    found = lora_linear(inputs, parts)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, asked, wanted), torch.autograd.grad(expected, asked, wanted), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_gated_mlp() -> None:
    torch.manual_seed(0)
    gate, up = (torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    parts = parts_of(5, 4)
    assert torch.autograd.gradcheck(gated_product, (gate, up))
    expected = step_by_step(functional.silu(gate) * up, parts, None)
    found = gated_down(gate, up, parts)
    torch.testing.assert_close(found, expected)
    asked, wanted = [gate, up, parts.down, parts.up], torch.randn(3, 4, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(found, asked, wanted), torch.autograd.grad(expected, asked, wanted), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = LlamaRMSNorm(16).to(dtype)
    nn.init.normal_(norm.weight)
    inputs = torch.randn(3, 5, 16).to(dtype).requires_grad_()
    expected, found = norm(inputs), rms_norm(inputs, norm.weight, norm.variance_epsilon)
    assert torch.equal(found, expected)
    wanted = torch.randn(3, 5, 16).to(dtype)
    near = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    for one, other in zip(
        torch.autograd.grad(found, [inputs, norm.weight], wanted),
        torch.autograd.grad(expected, [inputs, norm.weight], wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, **near)


def model_of(config: Any, method: str, settings: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    adapted = load_method(method)(model, settings)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, and A would have no gradient
            nn.init.normal_(parameter, std=0.1)
    return adapted.train()


def gradients(model: Any) -> dict[str, Tensor]:
    ids = torch.randint(0, 320, (2, 24), generator=torch.Generator().manual_seed(0))
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()))
    return dict(zip(trained, found, strict=True))


@pytest.mark.parametrize(
    ("config", "method", "count"),
    [
        # a layer has 7 linear layers, 1 MLP and 2 norms; there is a last norm
        (LlamaConfig(**SIZES), "lora", 2 * 10 + 1),
        (LlamaConfig(**SIZES), "full", 2 * 3 + 1),
        # and two norms of heads
        (Qwen3Config(**SIZES), "lora", 2 * 12 + 1),
        # Gemma's norms multiply by 1 + weight, and its MLPs have another activation
        (Gemma3TextConfig(**SIZES), "lora", 2 * 7),
    ],
    ids=["llama-lora", "llama-full", "qwen3-lora", "gemma3-lora"],
)
def test_a_model_gets_the_same_gradients(config: Any, method: str, count: int) -> None:
    settings = LoraSettings(rank=4) if method == "lora" else None
    model = model_of(config, method, settings)
    expected = gradients(model)
    with fused_layers(model) as fused:
        assert fused == count
        found = gradients(model)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_in_bf16_the_gradients_point_the_same_way() -> None:
    model = model_of(LlamaConfig(**SIZES), "lora", LoraSettings(rank=4), torch.bfloat16)
    expected = gradients(model)
    with fused_layers(model):
        found = gradients(model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    for name, gradient in expected.items():
        assert functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.99, name


@pytest.mark.parametrize("what", ["dora", "disabled", "evaluation"])
def test_what_it_does_not_compute_keeps_its_own_code(what: str) -> None:
    settings = LoraSettings(rank=4, dora=what == "dora", dropout=0.0 if what == "disabled" else 0.5)
    model = model_of(LlamaConfig(**SIZES), "lora", settings).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad(), model.disable_adapter() if what == "disabled" else nullcontext():
        expected = model(input_ids=ids).logits
        with fused_layers(model):
            torch.testing.assert_close(model(input_ids=ids).logits, expected)


def test_after_the_block_everything_is_as_before() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with fused_layers(model):
        assert any("forward" in vars(module) for module in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_run_has_the_same_losses(checkpointing: bool, tiny_llama_dir: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(12))
    losses = []
    for fused in (False, True):
        output = tmp_path / f"fused-{fused}"
        train(
            tiny_config(
                tiny_llama_dir, data, output, fused=fused, gradient_checkpointing=checkpointing, epochs=2
            )
        )
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert len(losses[0]) > 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
