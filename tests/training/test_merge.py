"""Merging: DESIGN's equality numbers, with the negatives that must fail them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from checkpoints.adapters import attach_adapter
from checkpoints.calibration import calibration_batches
from checkpoints.errors import CheckpointError, ConfigError, ManifestError
from checkpoints.fidelity import measure_fidelity
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import file_sha256, manifest_sha256, read_manifest
from checkpoints.prompt import PromptEncoder
from tests.tiny_gguf import save_tiny_gguf
from tests.tiny_models import build_tiny_llama, save_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import MergeConfig
from training.merge import merge
from training.run import train

# DESIGN.md, section 3, "Equality, in numbers"
MAX_LOGIT_DIFFERENCE_FP32 = 1e-4
MAX_MEAN_KL_BF16 = 1e-3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


@pytest.fixture(scope="module")
def adapter(tiny_llama_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config(tiny_llama_dir, data, tmp_path_factory.mktemp("run") / "run", max_steps=10))


@pytest.fixture(scope="module")
def nf4_adapter(tiny_llama_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "run"
    return train(tiny_config(tiny_llama_dir, data, output, method="qlora", dtype="bf16", max_steps=10))


def batches(checkpoint: Path) -> list[torch.Tensor]:
    return calibration_batches(
        None, PromptEncoder(load_tokenizer(checkpoint), read_manifest(checkpoint).tokens)
    )


@torch.no_grad()
def largest_logit_difference(one: Any, other: Any, rows: list[torch.Tensor]) -> float:
    return max(
        float((one(input_ids=ids[None]).logits - other(input_ids=ids[None]).logits).abs().max())
        for ids in rows
    )


def plain(directory: Path) -> Any:
    """What a user of transformers does, without PEFT and without us."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype="auto")


def perturbed(adapter: Path, target: Path, *, factor: float = 1.01) -> Path:
    """The same adapter with one weight matrix multiplied by ``factor``."""
    target.mkdir()
    for path in adapter.iterdir():
        if path.name not in ("trimaran.json", "adapter_model.safetensors"):
            (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    weights[name] = weights[name] * factor
    save_file(weights, target / "adapter_model.safetensors", metadata={"format": "pt"})
    return target


def test_an_fp32_merge_equals_base_and_adapter(adapter: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    merged = plain(merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", dtype="fp32")))
    rows = batches(adapter)
    trained = load_model(adapter, dtype="fp32", device="cpu")
    assert largest_logit_difference(trained, merged, rows) <= MAX_LOGIT_DIFFERENCE_FP32
    # the negatives: another adapter, another base, or no adapter at all
    other = load_model(perturbed(adapter, tmp_path / "perturbed"), dtype="fp32", device="cpu")
    assert largest_logit_difference(other, merged, rows) > MAX_LOGIT_DIFFERENCE_FP32
    base = load_model(tiny_llama_dir, dtype="fp32", device="cpu")
    assert largest_logit_difference(base, merged, rows) > MAX_LOGIT_DIFFERENCE_FP32
    wrong = load_model(save_tiny_llama(tmp_path / "wrong", seed=1), dtype="fp32", device="cpu")
    assert largest_logit_difference(attach_adapter(wrong, adapter), merged, rows) > MAX_LOGIT_DIFFERENCE_FP32


def test_a_bf16_merge_is_close_and_says_how_close(adapter: Path, tmp_path: Path) -> None:
    output = merge(MergeConfig(adapter=adapter, output=tmp_path / "merged"))
    merged = plain(output)
    assert merged.dtype == torch.bfloat16
    rows = batches(adapter)
    measured = measure_fidelity(load_model(adapter, dtype="fp32", device="cpu"), merged, rows)
    assert measured.mean_kl <= MAX_MEAN_KL_BF16
    recorded = read_manifest(output).metrics["fidelity"]
    assert 0 < recorded["mean_kl"] <= MAX_MEAN_KL_BF16
    assert recorded["tokens"] == measured.tokens
    assert recorded["adapter_retention"] == pytest.approx(1.0, abs=0.02)


def test_the_bf16_figure_sees_a_wrong_base_and_a_wrong_adapter(adapter: Path, tmp_path: Path) -> None:
    merged = plain(merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", fidelity=False)))
    wrong = save_tiny_llama(tmp_path / "wrong", seed=1)
    reference = attach_adapter(load_model(wrong, dtype="fp32", device="cpu"), adapter)
    rows = batches(adapter)
    assert measure_fidelity(reference, merged, rows).mean_kl > MAX_MEAN_KL_BF16
    other = load_model(perturbed(adapter, tmp_path / "perturbed", factor=3), dtype="fp32", device="cpu")
    assert measure_fidelity(other, merged, rows).mean_kl > MAX_MEAN_KL_BF16


def test_the_merged_checkpoint_is_whole(adapter: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    output = merge(MergeConfig(adapter=adapter, output=tmp_path / "merged"))
    manifest = read_manifest(output, verify=True)
    parent = read_manifest(adapter)
    assert (manifest.kind, manifest.merge_base, manifest.dtype) == ("merged", "original", "bf16")
    assert manifest.parent is not None
    assert manifest.parent.manifest_sha256 == manifest_sha256(adapter)
    assert manifest.base == parent.base
    assert manifest.training_data == parent.training_data
    assert manifest.metrics["final_loss"] == parent.metrics["final_loss"]
    assert manifest.bytes_per_parameter == pytest.approx(2.0)
    assert manifest.chat_template_sha256 == parent.chat_template_sha256
    assert manifest.tokenizer_sha256 == parent.tokenizer_sha256
    assert manifest.generation_config_sha256 == parent.generation_config_sha256
    tokenizer = AutoTokenizer.from_pretrained(output)
    original = AutoTokenizer.from_pretrained(tiny_llama_dir)
    assert tokenizer.chat_template == original.chat_template
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert (
        plain(output).generation_config.eos_token_id == plain(tiny_llama_dir).generation_config.eos_token_id
    )


@pytest.mark.parametrize("merge_base", ["original", "dequantized"])
def test_an_adapter_trained_on_nf4_merges_into_the_base_that_is_named(
    nf4_adapter: Path, tiny_llama_dir: Path, tmp_path: Path, merge_base: Any
) -> None:
    output = merge(
        MergeConfig(adapter=nf4_adapter, output=tmp_path / "merged", dtype="fp32", merge_base=merge_base)
    )
    manifest = read_manifest(output, verify=True)
    assert manifest.merge_base == merge_base
    rows = batches(nf4_adapter)
    base = load_model(tiny_llama_dir, dtype="fp32", device="cpu")
    if merge_base == "dequantized":
        packed = load_model(tiny_llama_dir, dtype="bf16", device="cpu", quantization="nf4")
        base = packed.dequantize(dtype=torch.float32).float()
    expected = attach_adapter(base, nf4_adapter)
    assert largest_logit_difference(expected, plain(output), rows) <= MAX_LOGIT_DIFFERENCE_FP32
    assert "quantization_config" not in json.loads((output / "config.json").read_text(encoding="utf-8"))


def test_the_two_bases_differ_and_dequantized_is_what_was_trained(nf4_adapter: Path, tmp_path: Path) -> None:
    kl = {}
    for merge_base in ("original", "dequantized"):
        config = MergeConfig(adapter=nf4_adapter, output=tmp_path / merge_base, merge_base=merge_base)  # type: ignore[arg-type]
        kl[merge_base] = read_manifest(merge(config)).metrics["fidelity"]["mean_kl"]
    assert kl["dequantized"] < 0.2 * kl["original"]


def test_dequantized_needs_an_adapter_trained_on_nf4(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"merge_base = dequantized, but .* was not quantized.*original"):
        merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", merge_base="dequantized"))
    assert not list(tmp_path.iterdir())


def test_an_nf4_directory_has_no_original(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    packed = tmp_path / "nf4"
    load_model(tiny_llama_dir, quantization="nf4", device="cpu").save_pretrained(packed)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (packed / name).write_bytes((tiny_llama_dir / name).read_bytes())
    adapter = train(tiny_config(packed, data, tmp_path / "run", dtype="bf16", max_steps=2))
    with pytest.raises(ConfigError, match=r"merge_base = original, but .* is NF4 itself"):
        merge(MergeConfig(adapter=adapter, output=tmp_path / "merged"))
    output = merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", merge_base="dequantized"))
    assert read_manifest(output).metrics["fidelity"]["mean_kl"] < 1e-2


def test_a_wrong_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    wrong = save_tiny_llama(tmp_path / "wrong", seed=1)
    with pytest.raises(CheckpointError, match="is not the base"):
        merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", base=str(wrong)))
    assert not (tmp_path / "merged").exists()


def test_a_base_that_moved_is_found_by_name(data: Path, tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "here", seed=2)
    adapter = train(tiny_config(base, data, tmp_path / "run", max_steps=1))
    base.rename(tmp_path / "there")
    with pytest.raises(CheckpointError, match="here"):
        merge(MergeConfig(adapter=adapter, output=tmp_path / "merged"))
    merge(
        MergeConfig(adapter=adapter, output=tmp_path / "merged", base=str(tmp_path / "there"), fidelity=False)
    )
    assert read_manifest(tmp_path / "merged").metrics["fidelity"] is None


def test_an_adapter_that_was_changed_is_refused(adapter: Path, tmp_path: Path) -> None:
    changed = perturbed(adapter, tmp_path / "changed")
    (changed / "trimaran.json").write_bytes((adapter / "trimaran.json").read_bytes())
    with pytest.raises(ManifestError, match=r"adapter_model\.safetensors"):
        merge(MergeConfig(adapter=changed, output=tmp_path / "merged"))


def test_only_an_adapter_is_merged(adapter: Path, tmp_path: Path) -> None:
    output = merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", fidelity=False))
    with pytest.raises(CheckpointError, match="kind merged; only an adapter"):
        merge(MergeConfig(adapter=output, output=tmp_path / "again"))


def test_an_output_that_exists_stays_unless_overwritten(adapter: Path, tmp_path: Path) -> None:
    config = MergeConfig(adapter=adapter, output=tmp_path / "merged", fidelity=False)
    merge(config)
    before = file_sha256(tmp_path / "merged" / "model.safetensors")
    with pytest.raises(CheckpointError, match="exists already"):
        merge(config)
    assert file_sha256(tmp_path / "merged" / "model.safetensors") == before
    merge(
        MergeConfig(adapter=adapter, output=tmp_path / "merged", fidelity=False, dtype="fp32", overwrite=True)
    )
    assert read_manifest(tmp_path / "merged").dtype == "fp32"


def test_a_gguf_base_trains_and_merges(
    tiny_tokenizer: PreTrainedTokenizerFast, data: Path, tmp_path: Path
) -> None:
    gguf = save_tiny_gguf(tmp_path / "tiny.gguf", build_tiny_llama(tiny_tokenizer), tiny_tokenizer)
    adapter = train(tiny_config(gguf, data, tmp_path / "run", max_steps=3, save_steps=1))
    named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert named["base_model_name_or_path"] == str(gguf.resolve())
    output = merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", dtype="fp32"))
    trained = load_model(adapter, dtype="fp32", device="cpu")
    assert largest_logit_difference(trained, plain(output), batches(adapter)) <= MAX_LOGIT_DIFFERENCE_FP32
    assert "quantization_config" not in json.loads((output / "config.json").read_text(encoding="utf-8"))
