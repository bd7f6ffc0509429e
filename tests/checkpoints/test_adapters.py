from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.errors import CheckpointError
from checkpoints.loading import base_manifest, describe_source, load_model, load_tokenizer
from checkpoints.manifest import seal
from tests.checkpoints.test_loading import logits
from tests.tiny_models import save_tiny_llama


def test_adapter_directory(tiny_llama_dir: Path, tmp_path: Path) -> None:
    adapter, tuned = save_adapter(tiny_llama_dir, tmp_path / "adapter")
    assert describe_source(adapter).kind == "adapter"
    assert torch.equal(logits(load_model(adapter)), tuned)
    assert not torch.allclose(tuned, logits(load_model(tiny_llama_dir)))
    assert load_tokenizer(adapter).chat_template == load_tokenizer(tiny_llama_dir).chat_template


def test_adapter_on_a_base_that_changed_is_refused(tiny_llama_dir: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_llama_dir, base)
    adapter, _ = save_adapter(base, tmp_path / "adapter")
    save_tiny_llama(base, seed=1)
    with pytest.raises(CheckpointError, match=r"not the base.*model\.safetensors differs"):
        load_model(adapter)
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="is not there"):
        load_model(adapter)
    assert load_model(adapter, base=tiny_llama_dir) is not None


def test_adapter_trained_on_nf4_gets_an_nf4_base(tiny_llama_dir: Path, tmp_path: Path) -> None:
    adapter, _ = save_adapter(tiny_llama_dir, tmp_path / "adapter", {"base_quantization": "nf4"})
    layers = {type(module).__name__ for module in load_model(adapter).modules()}
    assert "Linear4bit" in layers


def save_adapter(
    base: Path, target: Path, settings: dict[str, Any] | None = None
) -> tuple[Path, torch.Tensor]:
    """Save a random LoRA on ``base`` with its manifest; return it and the tuned model's logits."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load_model(base), load_tokenizer(base)
    manifest = base_manifest(base, model, tokenizer)
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(model, config).eval()
    tuned.save_pretrained(target)
    seal(target, replace(manifest, kind="adapter", method="lora", settings=settings or {}))
    return target, logits(tuned)
