"""LoRA on a model: what is trained, and names that match nothing."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import ConfigError
from tests.tiny_models import build_tiny_llama
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method, method_names


def test_the_methods_are_the_folders() -> None:
    assert "lora" in method_names()


def test_all_linear_leaves_the_head_and_trains_in_fp32(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_llama(tiny_tokenizer).to(torch.bfloat16)
    adapted = load_method("lora")(model, LoraSettings(rank=4))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    # 2 layers x 7 linear layers x (A, B)
    assert len(trained) == 28
    assert not any("lm_head" in name for name in trained)


def test_named_layers_only(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    settings = LoraSettings(rank=4, target_modules=["q_proj", "layers.0.mlp.down_proj"])
    adapted = load_method("lora")(build_tiny_llama(tiny_tokenizer), settings)
    adapted_layers = {name.split(".lora_")[0] for name, p in adapted.named_parameters() if p.requires_grad}
    assert {name.partition("layers.")[2] for name in adapted_layers} == {
        "0.self_attn.q_proj",
        "1.self_attn.q_proj",
        "0.mlp.down_proj",
    }


@pytest.mark.parametrize("targets", [["query"], "query", ["q_proj", "query"], ["norm"]])
def test_a_name_that_matches_nothing_lists_the_layers(
    tiny_tokenizer: PreTrainedTokenizerFast, targets: str | list[str]
) -> None:
    with pytest.raises(
        ConfigError, match=r"'(query|norm)' matches no linear layer.*down_proj.*q_proj.*v_proj"
    ):
        load_method("lora")(build_tiny_llama(tiny_tokenizer), LoraSettings(target_modules=targets))


def test_rslora_divides_by_the_root_of_the_rank(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    scales = []
    for rslora in (False, True):
        settings = LoraSettings(rank=16, alpha=32, target_modules=["q_proj"], rslora=rslora)
        adapted = load_method("lora")(build_tiny_llama(tiny_tokenizer), settings)
        layer = adapted.base_model.model.model.layers[0].self_attn.q_proj
        scales.append(layer.scaling["default"])
    assert scales == [2.0, 8.0]


def test_dora_starts_at_the_base_and_trains_magnitudes(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = torch.tensor([[5, 6, 7]])
    expected = build_tiny_llama(tiny_tokenizer)(input_ids=ids).logits
    adapted = load_method("lora")(build_tiny_llama(tiny_tokenizer), LoraSettings(rank=4, dora=True))
    torch.testing.assert_close(adapted(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len([name for name in trained if "lora_magnitude_vector" in name]) == 14
