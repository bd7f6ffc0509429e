"""The fused layers on an NF4 base: the gradients of PEFT's and bitsandbytes' code, at half the memory."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from training.base import load_trainable_base
from training.fused.apply import fused_layers
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
IDS = torch.randint(0, 320, (2, 24), generator=torch.Generator().manual_seed(0))


def model_of(directory: Path, dtype: Any, *, bias: bool = False, packed: bool = True, **settings: Any) -> Any:
    torch.manual_seed(0)
    # Qwen2 has biases on q, k and v.
    base = Qwen2ForCausalLM(Qwen2Config(**SIZES)) if bias else LlamaForCausalLM(LlamaConfig(**SIZES))
    for name, parameter in base.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    base.save_pretrained(directory)
    double = settings.pop("double", False)
    loaded = load_trainable_base(
        str(directory),
        dtype=dtype,
        device="cpu",
        quantization="nf4" if packed else None,
        double_quantization=double,
    )
    adapted = load_method("lora")(loaded, LoraSettings(rank=4, **settings))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero at first, and A would have no gradient
            nn.init.normal_(parameter, std=0.1)
    return adapted.train()


def loss_of(model: Any, dtype: str, *, fused: bool, packed: bool = True) -> Any:
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=packed and dtype == "bf16")
    with autocast, fused_layers(model) if fused else nullcontext():
        return model(input_ids=IDS, labels=IDS, use_cache=False).loss


def gradients(model: Any, dtype: str, *, fused: bool) -> dict[str, Tensor]:
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    found = torch.autograd.grad(loss_of(model, dtype, fused=fused), list(trained.values()))
    return dict(zip(trained, found, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"double": True},
        {"bias": True},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["down_proj"]},
    ],
    ids=["all", "double-quantization", "bias", "qv", "down"],
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_gradients_are_the_same(settings: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    model = model_of(tmp_path, dtype, **settings)
    expected, found = (gradients(model, dtype, fused=fused) for fused in (False, True))
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        if dtype == "fp32":
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
        else:
            assert functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0) > 0.99, name


def test_dropout_drops_what_it_keeps(tmp_path: Path) -> None:
    """The same draw in the forward and the backward pass: the loss falls along its own gradient."""
    model = model_of(tmp_path, "fp32", dropout=0.5)
    torch.manual_seed(1)
    trained = [one for one in model.parameters() if one.requires_grad]
    loss = loss_of(model, "fp32", fused=True)
    steps = torch.autograd.grad(loss, trained)
    before = float(loss.detach())
    size = 1e-3 / sum(float(step.pow(2).sum()) for step in steps)
    with torch.no_grad():
        for parameter, step in zip(trained, steps, strict=True):
            parameter -= size * step
        torch.manual_seed(1)
        assert before - float(loss_of(model, "fp32", fused=True)) == pytest.approx(1e-3, rel=0.1)


def kept(model: Any, dtype: str, **how: bool) -> int:
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own and 320 not in tensor.shape:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model, dtype, **how)
    return sum(found.values())


def test_autograd_keeps_little_more_than_on_a_bf16_base(tmp_path: Path) -> None:
    """Norms are in fp32, so their inputs and outputs take twice as much; the rest takes the same."""
    lora = kept(model_of(tmp_path / "a", "bf16", packed=False), "bf16", fused=True, packed=False)
    packed = model_of(tmp_path / "b", "bf16")
    fused, plain = (kept(packed, "bf16", fused=fused) for fused in (True, False))
    print(f"LoRA {lora:,}, QLoRA fused {fused:,}, as PEFT and bitsandbytes have it {plain:,}")
    assert fused < 1.5 * lora < 0.8 * plain


@pytest.mark.parametrize("what", ["dora", "disabled"])
def test_what_it_does_not_compute_keeps_its_own_code(what: str, tmp_path: Path) -> None:
    model = model_of(tmp_path, "fp32", dora=what == "dora").eval()
    with torch.no_grad(), model.disable_adapter() if what == "disabled" else nullcontext():
        expected, found = (loss_of(model, "fp32", fused=fused) for fused in (False, True))
    torch.testing.assert_close(found, expected)
