from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import bitsandbytes
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from checkpoints.errors import CheckpointError, UnsupportedCheckpoint
from checkpoints.fidelity import measure_fidelity
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import read_manifest
from checkpoints.nf4 import check_quantizable
from checkpoints.quantize import QuantizeConfig, quantize
from checkpoints.quiet import quiet_transformers
from tests.tiny_models import save_tiny_llama

BATCHES = [torch.randint(4, 320, (64,), generator=torch.Generator().manual_seed(row)) for row in range(3)]


def test_odd_layers_run_on_every_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs no multiple of 64, outputs no multiple of 32: bitsandbytes' layout for AVX-512 takes neither."""
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    source = save_tiny_llama(tmp_path / "odd", hidden_size=72, intermediate_size=200, head_dim=18)
    output = quantize(QuantizeConfig(source, tmp_path / "nf4", fidelity=False))
    model = load_model(output, dtype="fp32", device="cpu")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert {layer.in_features % 64 for layer in layers.values()} == {8}
    with torch.inference_mode():
        for name, layer in layers.items():
            values = torch.randn(3, layer.in_features)
            state = copy.copy(layer.weight.quant_state)
            state.dtype = torch.float32
            weight = dequantize_4bit(layer.weight.data, state)
            torch.testing.assert_close(layer(values), values @ weight.T, rtol=1e-4, atol=1e-4, msg=name)
    kl = measure_fidelity(load_model(source, dtype="fp32"), model, BATCHES).mean_kl
    assert 0 < kl < 2


def test_transposed_linear_layers_of_gpt2_are_packed(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=320, n_embd=96, n_layer=1, n_head=4, n_inner=128, n_positions=64)
    model = GPT2LMHeadModel(config)
    check_quantizable(model)
    model.save_pretrained(tmp_path / "gpt2")
    packed = load_model(tmp_path / "gpt2", quantization="nf4", dtype="fp32", device="cpu")
    layer = packed.get_submodule("transformer.h.0.attn.c_attn")
    assert (layer.in_features, layer.out_features) == (96, 288)
    with torch.inference_mode():
        difference = packed(BATCHES[0][None]).logits - model.eval()(BATCHES[0][None]).logits
    assert 0 < difference.norm() < 0.5 * model(BATCHES[0][None]).logits.norm()


def test_a_checkpoint_that_is_quantized_otherwise_is_refused(tmp_path: Path) -> None:
    source = save_tiny_llama(tmp_path / "dense")
    fp4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")
    with quiet_transformers():
        AutoModelForCausalLM.from_pretrained(source, quantization_config=fp4).save_pretrained(tmp_path / "4")
    load_tokenizer(source).save_pretrained(tmp_path / "4")
    with pytest.raises(UnsupportedCheckpoint, match=r"quantized already \(fp4\)"):
        quantize(QuantizeConfig(tmp_path / "4", tmp_path / "nf4"))
    path = source / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [64, 64]}
    path.write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match=r"quantized already \(fp8\)"):
        quantize(QuantizeConfig(source, tmp_path / "nf4"))


def test_a_model_with_its_own_code_is_quantized_only_when_trusted(tmp_path: Path) -> None:
    source = save_tiny_llama(tmp_path / "remote")
    path = source / "config.json"
    config = json.loads(path.read_text())
    config["model_type"] = "our_nf4"
    config["auto_map"] = {"AutoConfig": "own_nf4.OwnConfig", "AutoModelForCausalLM": "own_nf4.OwnModel"}
    path.write_text(json.dumps(config))
    (source / "own_nf4.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'our_nf4'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        quantize(QuantizeConfig(source, tmp_path / "nf4"))
    output = quantize(QuantizeConfig(source, tmp_path / "nf4", trust_remote_code=True))
    manifest = read_manifest(output, verify=True)
    assert manifest.remote_code
    assert manifest.bytes_per_parameter < 1
    assert "own_nf4.py" in manifest.files  # it must travel with the weights
    shutil.rmtree(source)
    assert type(load_model(output, trust_remote_code=True)).__name__ == "OwnModel"


def test_the_figures_tell_nf4_from_a_wrong_or_damaged_model(
    merged: Path, packed: Path, tmp_path: Path
) -> None:
    reference = load_model(merged, dtype="fp32")
    nf4 = measure_fidelity(reference, load_model(packed, dtype="fp32"), BATCHES)

    wrong = quantize(
        QuantizeConfig(save_tiny_llama(tmp_path / "other", seed=1), tmp_path / "wrong", fidelity=False)
    )
    against_wrong = measure_fidelity(reference, load_model(wrong, dtype="fp32"), BATCHES)

    model = load_model(merged, dtype="fp32")
    with torch.no_grad():  # the heads of one layer are shifted by one, as a wrong split would have it
        weight = model.get_submodule("model.layers.0.self_attn.q_proj").weight
        weight.copy_(weight.roll(16, dims=0))
    model.save_pretrained(tmp_path / "damaged")
    load_tokenizer(merged).save_pretrained(tmp_path / "damaged")
    damaged = quantize(QuantizeConfig(tmp_path / "damaged", tmp_path / "damaged-nf4", fidelity=False))
    against_damaged = measure_fidelity(reference, load_model(damaged, dtype="fp32"), BATCHES)

    print(nf4, against_wrong, against_damaged, sep="\n")
    assert against_wrong.mean_kl > 4 * nf4.mean_kl
    assert against_wrong.top1_agreement < 0.1 < nf4.top1_agreement
    assert against_damaged.mean_kl > 4 * nf4.mean_kl
