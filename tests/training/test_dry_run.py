"""The dry run: counts are exact, activations are what autograd keeps, and nothing is written."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    LlamaConfig,
    LlamaForCausalLM,
)

from checkpoints.architectures.deepseek import DeepseekConfig
from checkpoints.errors import ConfigError
from checkpoints.loading import load_model
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.activation_estimate import activation_bytes
from training.base import load_trainable_base
from training.dry_run import dry_run, render
from training.fused.apply import fused_layers
from training.machine_memory import Memory, find_memory
from training.memory_estimate import MemoryEstimate, estimate_memory
from training.methods.bottleneck.config import BottleneckSettings
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method
from training.moe.autocast import autocast_experts
from training.precision import autocasts, base_dtype
from training.run import train
from trimaran.cli import main

ROWS, LENGTH = 4, 48  # together no size of a weight
DEEPSEEK_7B = LlamaConfig(
    vocab_size=102400, hidden_size=4096, intermediate_size=11008, num_hidden_layers=30,
    num_attention_heads=32, max_position_embeddings=4096, tie_word_embeddings=False,
)  # fmt: skip
SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
LINEAR_7B = 30 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
REST_7B = 2 * 102400 * 4096 + 61 * 4096


def config_of(**overrides: Any) -> Any:
    settings = {"dtype": "fp32", "batch_size": ROWS, "rows": {"max_length": LENGTH}}
    return tiny_config(Path("m"), Path("d"), Path("o"), **{**settings, **overrides})


def empty(config: LlamaConfig) -> Any:
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def kept_bytes(config: Any, model: Any) -> int:
    """What autograd keeps of a forward pass beside the model itself and its logits."""
    vocabulary = model.config.vocab_size
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: list[weakref.ref[torch.Tensor]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own and vocabulary not in tensor.shape and tensor.numel() >= ROWS * LENGTH:
            kept.append(weakref.ref(tensor))
        return tensor

    ids = torch.randint(0, vocabulary, (ROWS, LENGTH))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocasts(config)),
        fused_layers(model) if config.fused else nullcontext(),
        autocast_experts(model),
    ):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    copies: set[tuple[int, ...]] = set()  # of weights, by autocast: the estimate counts them as weights
    if autocasts(config):
        shapes = [tuple(value.shape) for value in model.parameters() if value.requires_grad]
        copies = {*shapes, *(shape[:-2] + shape[:-3:-1] for shape in shapes)}  # and transposed
    # What DoRA computes of its weights alone is gone before the layer is done.
    found = (tensor for reference in kept if (tensor := reference()) is not None)
    alive = {tensor.untyped_storage().data_ptr(): tensor for tensor in found}
    assert loss.requires_grad  # and all that is kept for it is there
    return sum(
        tensor.untyped_storage().nbytes() for tensor in alive.values() if tuple(tensor.shape) not in copies
    )


def kept_and_estimated(config: Any, sizes: Any, directory: Path) -> tuple[int, int, Any]:
    """What autograd keeps, what the estimate makes of the shapes alone, and the model of the latter."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(sizes, dtype=torch.float32)
    base.save_pretrained(directory)
    base = load_trainable_base(
        str(directory),
        dtype=base_dtype(config),
        device="cpu",
        quantization=config.base_quantization,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    settings = getattr(config, config.method)
    measured = kept_bytes(config, load_method(config.method)(base, settings).train())
    with torch.device("meta"):
        shapes = load_method(config.method)(AutoModelForCausalLM.from_config(sizes), settings)
    estimated = ROWS * LENGTH * activation_bytes(config, shapes)
    print(f"{config.method} {config.base_quantization} {config.dtype}: {estimated / measured:.2f}")
    return measured, estimated, shapes


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora"},
        {"method": "lora", "lora": LoraSettings(rank=8, target_modules=["q_proj", "v_proj"])},
        {"method": "lora", "lora": LoraSettings(rank=8, dropout=0.1)},
        {"method": "bottleneck", "bottleneck": BottleneckSettings(size=16)},
        {"method": "full"},
        {"method": "full", "gradient_checkpointing": True},
        {"method": "lora", "fused": False},
        {"method": "lora", "lora": LoraSettings(rank=8, dropout=0.1), "fused": False},
        {"method": "full", "fused": False},
        {"method": "qlora"},
        {"method": "qlora", "lora": LoraSettings(rank=8, target_modules=["q_proj", "v_proj"])},
        {"method": "qlora", "lora": LoraSettings(rank=8, dropout=0.1)},
        {"method": "qlora", "fused": False},
        {"method": "lora", "lora": LoraSettings(rank=8, dora=True)},
        {"method": "qlora", "lora": LoraSettings(rank=8, dora=True)},
    ],
    ids=[
        *("lora", "lora-qv", "lora-dropout", "bottleneck", "full", "full-checkpointing"),
        *("lora-unfused", "lora-dropout-unfused", "full-unfused"),
        *("qlora", "qlora-qv", "qlora-dropout", "qlora-unfused", "dora", "qlora-dora"),
    ],
)
def test_activations_are_what_autograd_keeps(settings: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    config = config_of(**settings, dtype=dtype)
    sizes = LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    measured, estimated, shapes = kept_and_estimated(config, sizes, tmp_path)
    if config.gradient_checkpointing:
        # autograd has the layers' inputs; the estimate adds the one layer that is computed again
        plain = ROWS * LENGTH * activation_bytes(replace(config, gradient_checkpointing=False), shapes)
        assert measured < 1.25 * estimated < 0.6 * plain
        return
    assert 0.85 <= estimated / measured <= 1.15


COMMON: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 640, "moe_intermediate_size": 128,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8,
    "n_shared_experts": 2, "num_experts_per_tok": 3, "first_k_dense_replace": 1,
    "max_position_embeddings": 128,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
    "n_group": 1, "topk_group": 1,
}  # fmt: skip
MIXTURES = {
    "deepseek": DeepseekConfig(**COMMON),
    "v2": DeepseekV2Config(**COMMON, **LATENT, q_lora_rank=None),
    "v3": DeepseekV3Config(**COMMON, **LATENT, q_lora_rank=96),
}


@pytest.mark.parametrize(
    ("name", "method", "dtype"),
    [
        *(("deepseek", "lora", dtype) for dtype in ("fp32", "bf16")),
        *(("deepseek", "full", dtype) for dtype in ("fp32", "bf16")),
        *(("deepseek", "qlora", dtype) for dtype in ("fp32", "bf16")),
        *(("v2", method, "bf16") for method in ("lora", "qlora", "full")),
        *(("v3", method, "bf16") for method in ("lora", "qlora")),
    ],
)
def test_activations_of_a_mixture_are_what_autograd_keeps(
    name: str, method: str, dtype: str, tmp_path: Path
) -> None:
    config = config_of(method=method, dtype=dtype)
    measured, estimated, _ = kept_and_estimated(config, MIXTURES[name], tmp_path)
    assert 0.85 <= estimated / measured <= 1.15


def test_passes_that_may_be_done_again_need_gradients_twice() -> None:
    plain, again = (
        estimate_memory(config_of(retry_out_of_memory=retry), empty(LlamaConfig(**SMALL)), LENGTH)
        for retry in (False, True)
    )
    assert again.gradients == 2 * plain.gradients > 0


def test_the_parts_of_a_7b_by_arithmetic() -> None:
    """DeepSeek-7B: 6.91 billion parameters, of which NF4 packs the linear layers of the 30 layers."""
    lora = 16 * 30 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    found = estimate_memory(
        config_of(method="lora", lora=LoraSettings(rank=16), dtype="bf16"), empty(DEEPSEEK_7B), LENGTH
    )
    assert (found.parameters, found.trainable) == (LINEAR_7B + REST_7B, lora)
    assert found.weights == 2 * found.parameters + 4 * lora
    assert (found.gradients, found.optimizer) == (4 * lora, 8 * lora)

    packed = estimate_memory(
        config_of(method="qlora", lora=LoraSettings(rank=16), dtype="bf16", double_quantization=True),
        empty(DEEPSEEK_7B),
        LENGTH,
    )
    blocks = LINEAR_7B / 64
    scales = blocks + 4 * blocks / 256 + 4 * 30 * 7  # in 8 bits, theirs in 32, and an offset for each matrix
    expected = LINEAR_7B / 2 + scales + 4 * REST_7B + (4 + 2) * lora
    assert packed.weights == pytest.approx(expected, rel=1e-9)

    full = estimate_memory(
        config_of(method="full", dtype="bf16", optimizer="paged_adamw_8bit"), empty(DEEPSEEK_7B), LENGTH
    )
    assert full.trainable == full.parameters
    assert full.weights == (4 + 2) * full.parameters  # and autocast's copies
    assert full.optimizer == pytest.approx(2 * (1 + 4 / 256) * full.parameters, rel=1e-9)


def test_the_nf4_figure_is_that_of_a_packed_model(tiny_llama_dir: Path) -> None:
    from checkpoints.sizes import storage_bytes

    config = config_of(method="qlora", dtype="bf16")
    packed = load_trainable_base(str(tiny_llama_dir), dtype="bf16", device="cpu", quantization="nf4")
    model = load_model(tiny_llama_dir, device="cpu")
    found = estimate_memory(config, model, LENGTH)
    # bitsandbytes keeps a table of the 16 values and a few names beside each weight
    assert found.weights - 6 * found.trainable == pytest.approx(storage_bytes(packed), rel=0.05)


def test_the_table_is_printed_and_nothing_is_written(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    before = sorted(tmp_path.rglob("*"))
    line = [
        "train", "--model", str(tiny_llama_dir), "--data.train", str(data), "--output", str(tmp_path / "run"),
        "--method", "bottleneck", "--bottleneck.size", "16", "--dtype", "fp32", "--dry-run",
    ]  # fmt: skip
    assert main(line) == 0
    text = capsys.readouterr().out
    trainable = 4 * (2 * 16 * 64 + 64 + 16)
    assert f"trainable     {trainable:,} parameters" in text
    assert "8 rows of 256 tokens" in text  # the tiny model's context
    assert "it fits" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_what_does_not_fit_says_what_takes_less() -> None:
    estimate = MemoryEstimate(10**9, 10**9, 6 << 30, 4 << 30, 8 << 30, 9 << 30, 8)
    text = render(config_of(method="full"), "Llama", 64, estimate, Memory("CPU", 16 << 30, 20 << 30))
    assert "total            27.00" in text
    assert "it does not fit: --gradient-checkpointing" in text
    assert "--method lora" in text


def test_an_optimizer_for_gpus_is_named_not_refused(tiny_llama_dir: Path) -> None:
    text = dry_run(tiny_config(tiny_llama_dir, Path("d"), Path("o"), optimizer="paged_adamw_8bit"))
    assert "optimizer = paged_adamw_8bit needs a CUDA GPU" in text


def test_the_memory_of_this_machine() -> None:
    memory = find_memory("cpu")
    assert 0 < memory.available <= memory.total


def test_a_dry_run_never_trains(tiny_llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dry_run = true"):
        train(tiny_config(tiny_llama_dir, tmp_path / "d", tmp_path / "run", dry_run=True))
