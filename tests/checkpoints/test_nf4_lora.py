"""LoRA on packed experts: outputs and gradients are those of PEFT on the same weights unpacked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import ParamWrapper

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.lora_targets import targets_as_named
from checkpoints.nf4_experts import fused_experts, packed_experts
from checkpoints.nf4_lora import PackedExpertsLora
from tests.tiny_mixtures import save_tiny_mixture

IDS = torch.randint(5, 250, (2, 16), generator=torch.Generator().manual_seed(7))


def adapted(model: Any, experts: list[str]) -> Any:
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=8,
        target_modules=["model.layers.0.self_attn.q_proj"],
        target_parameters=[f"{name}.{part}" for name in experts for part in ("gate_up_proj", "down_proj")],
    )
    with targets_as_named():
        return get_peft_model(model, config)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same adapter on packed experts and on what they dequantize to."""
    source = save_tiny_mixture(tmp_path_factory.mktemp("model") / "model", "deepseek")
    packed, plain = (load_model(source, quantization="nf4", dtype="fp32", device="cpu") for _ in range(2))
    for module in packed.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # that layout rounds the scales
    plain = plain.dequantize(dtype=torch.float32).float()
    ours = adapted(packed, list(packed_experts(packed)))
    theirs = adapted(plain, list(fused_experts(plain)))
    weights = {name: value for name, value in theirs.named_parameters() if "lora_" in name}
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in weights.values():
            value.normal_(std=0.05, generator=generator)
        for name, value in ours.named_parameters():
            if "lora_" in name:
                value.copy_(weights[name])
    return ours, theirs


def test_outputs_and_gradients_are_those_of_unpacked_experts(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    assert sum(isinstance(module, PackedExpertsLora) for module in ours.modules()) == 2
    assert {type(module) for module in theirs.modules() if isinstance(module, ParamWrapper)} == {ParamWrapper}
    gradients = []
    for model in pair:
        output = model(input_ids=IDS, labels=IDS)
        output.loss.backward()
        gradients.append(
            {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
        )
        gradients[-1]["logits"] = output.logits.detach()
    assert gradients[0].keys() == gradients[1].keys()
    assert all("lora_" in name or name == "logits" for name in gradients[0])
    for name, gradient in gradients[1].items():
        assert gradient.any(), name
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_without_the_adapter_it_is_the_base(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    with torch.no_grad():
        with ours.disable_adapter(), theirs.disable_adapter():
            one, other = ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(ours(input_ids=IDS).logits, one, atol=1e-2)


def test_merging_into_packed_experts_is_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="cannot be merged into experts that are packed"):
        next(m for m in pair[0].modules() if isinstance(m, PackedExpertsLora)).merge()
