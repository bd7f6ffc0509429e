"""The loss's share of the memory estimate: what PyTorch really allocates, and only where it is in chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, LlamaForCausalLM

import training.chunked_loss as chunked_loss_module
from tests.training.rows import tiny_config
from training.activation_estimate import activation_bytes
from training.chunked_loss import chunked_loss
from training.fused.apply import fused_layers
from training.loss_estimate import loss_bytes
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method
from training.precision import autocasts, base_dtype

ROWS, LENGTH, VOCABULARY, HIDDEN = 4, 128, 8192, 64
CHUNK = 64 * VOCABULARY


def config_of(**overrides: Any) -> Any:
    return tiny_config(Path("m"), Path("d"), Path("o"), **overrides)


def llama(**overrides: Any) -> LlamaForCausalLM:
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **overrides}))


def peak_bytes(model: Any, batch: dict[str, torch.Tensor], autocast: bool) -> int:
    """The most that was allocated at once in two passes that accumulate their gradients."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler, torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):  # fmt: skip
        for _ in range(2):
            model(**batch, use_cache=False).loss.backward()
    assert profiler.profiler is not None
    events = [one for one in profiler.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_it_is_what_a_pass_allocates(method: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss_module, "_CHUNK_VALUES", CHUNK)
    config = config_of(method=method, dtype=dtype, lora=LoraSettings(rank=4))
    torch.manual_seed(0)
    model = llama().to(torch.bfloat16 if base_dtype(config) == "bf16" else torch.float32)
    adapted = load_method(method)(model, getattr(config, method)).train()
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    example = {name: value[:1, :16] for name, value in batch.items()}
    with chunked_loss(adapted, example) as done, fused_layers(adapted):
        assert done
        measured = peak_bytes(adapted, batch, autocasts(config))

    tokens = ROWS * LENGTH
    trainable = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    loss = loss_bytes(config, adapted, tokens)
    estimated = tokens * activation_bytes(config, adapted) + loss + 4 * trainable
    estimated += 2 * trainable if autocasts(config) else 0  # copies that the estimate counts as weights
    print(f"{method} {dtype}: estimated {estimated:,}, allocated {measured:,}: {estimated / measured:.2f}")
    assert 0.9 <= estimated / measured <= 1.15
    # the negative: with the logits of all positions it would be far more
    assert tokens * 12 * VOCABULARY > 2 * measured


def test_only_where_the_loss_is_in_chunks() -> None:
    config = config_of(dtype="bf16")
    capped = Gemma2Config(
        vocab_size=256_000, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    with torch.device("meta"):
        plain, whole = llama(vocab_size=256_000), AutoModelForCausalLM.from_config(capped)
    plain.requires_grad_(False)
    assert loss_bytes(config, whole, 8192) == 12 * 256_000 * 8192
    # 32 positions at a time, and the head's input and its gradient
    assert loss_bytes(config, plain, 8192) == 32 * 256_000 * 6 + 2 * 8192 * HIDDEN * 2
    with torch.device("meta"):
        adapted = load_method("lora")(plain, LoraSettings(rank=4, target_modules=["q_proj", "lm_head"]))
    assert loss_bytes(config, adapted, 8192) == 12 * 256_000 * 8192
