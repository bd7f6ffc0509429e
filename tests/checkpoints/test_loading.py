from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints.errors import CheckpointError, ConfigError
from checkpoints.loading import base_manifest, describe_source, load_model, load_tokenizer
from checkpoints.manifest import MANIFEST_NAME, manifest_sha256, seal
from tests.tiny_gguf import save_tiny_gguf
from tests.tiny_mixtures import save_tiny_mixture
from tests.tiny_models import build_tiny_llama, build_tiny_tokenizer, save_tiny_llama

IDS = torch.tensor([[5, 80, 200, 17, 301, 44]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.float()


@pytest.fixture(scope="module")
def expected(tiny_llama_dir: Path) -> torch.Tensor:
    return logits(load_model(tiny_llama_dir))


@pytest.fixture
def state_dict_dir(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "states"
    shutil.copytree(tiny_llama_dir, directory)
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(state, directory / "pytorch_model.bin")
    return directory


def test_safetensors_directory(tiny_llama_dir: Path) -> None:
    assert describe_source(tiny_llama_dir).kind == "safetensors"
    model = load_model(tiny_llama_dir)
    assert model.dtype == torch.float32
    assert not model.training
    assert load_model(tiny_llama_dir, dtype="bf16").dtype == torch.bfloat16


@pytest.mark.parametrize("as_file", [False, True])
def test_state_dict_gives_the_same_logits(
    state_dict_dir: Path, as_file: bool, expected: torch.Tensor
) -> None:
    source = state_dict_dir / "pytorch_model.bin" if as_file else state_dict_dir
    assert describe_source(source).kind == "pytorch"
    model = load_model(source)
    assert torch.equal(logits(model), expected)
    assert model.generation_config.eos_token_id == [2]
    assert load_tokenizer(source).chat_template


def test_state_dict_wrapped_by_a_trainer(state_dict_dir: Path, expected: torch.Tensor) -> None:
    path = state_dict_dir / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    assert torch.equal(logits(load_model(path)), expected)


def test_state_dict_names_missing_and_unexpected_weights(state_dict_dir: Path) -> None:
    path = state_dict_dir / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    weight = state.pop("model.layers.1.mlp.up_proj.weight")
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"lacks weights.*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(path)
    state["model.layers.1.mlp.up_proj.weight"] = weight
    state["model.layers.7.extra.weight"] = weight
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"no place for.*model\.layers\.7\.extra\.weight"):
        load_model(path)


def test_weight_of_the_wrong_shape_is_named(state_dict_dir: Path) -> None:
    path = state_dict_dir / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    state["model.norm.weight"] = torch.ones(7)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="could not load"):
        load_model(path)


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def test_pickle_that_runs_code_is_refused(state_dict_dir: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    path = state_dict_dir / "pytorch_model.bin"
    torch.save({"weight": Malicious(proof)}, path)
    with pytest.raises(CheckpointError, match=r"refused.*posix\.system|refused.*GLOBAL") as caught:
        load_model(path)
    assert "safetensors" in str(caught.value)
    path.write_bytes(pickle.dumps({"weight": Malicious(proof)}))
    with pytest.raises(CheckpointError, match="refused"):
        load_model(path)
    assert not proof.exists()


def test_state_dict_needs_a_config(state_dict_dir: Path) -> None:
    (state_dict_dir / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json beside it"):
        load_model(state_dict_dir / "pytorch_model.bin")


def test_truncated_files_are_refused(tiny_llama_dir: Path, state_dict_dir: Path, tmp_path: Path) -> None:
    path = state_dict_dir / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cannot be read|refused"):
        load_model(path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama_dir, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"could not load {broken}"):
        load_model(broken)


def test_missing_safetensors_weight_is_an_error_not_a_random_tensor(
    tiny_llama_dir: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "holes"
    shutil.copytree(tiny_llama_dir, directory)
    state = load_file(directory / "model.safetensors")
    del state["model.layers.0.self_attn.q_proj.weight"]
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks weights.*layers\.0\.self_attn\.q_proj"):
        load_model(directory)


def test_gguf_gives_the_same_logits_tokens_and_template(
    tmp_path: Path, tiny_tokenizer: Any, expected: torch.Tensor
) -> None:
    path = save_tiny_gguf(tmp_path / "tiny.gguf", build_tiny_llama(tiny_tokenizer), tiny_tokenizer)
    for source in (path, tmp_path):
        assert describe_source(source).kind == "gguf"
        model, tokenizer = load_model(source, dtype="fp32"), load_tokenizer(source)
        assert torch.allclose(logits(model), expected, atol=1e-5)
    assert load_model(path).dtype == torch.bfloat16
    text = "The quick 你好 🚀"
    assert tokenizer.encode(text) == tiny_tokenizer.encode(text)
    assert tokenizer.chat_template == tiny_tokenizer.chat_template
    manifest = base_manifest(path, model, tokenizer)
    assert manifest.licence == "apache-2.0"
    assert manifest.tokens.stop == [2]
    assert list(manifest.base.files) == ["tiny.gguf"]
    model.save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    assert torch.allclose(logits(load_model(tmp_path / "dense")), expected, atol=1e-5)


def test_nf4_on_the_way_in_is_the_same_from_every_kind_of_file(
    tmp_path: Path, tiny_llama_dir: Path, state_dict_dir: Path, tiny_tokenizer: Any
) -> None:
    gguf = save_tiny_gguf(tmp_path / "tiny.gguf", build_tiny_llama(tiny_tokenizer), tiny_tokenizer)
    results = [logits(load_model(s, quantization="nf4")) for s in (tiny_llama_dir, state_dict_dir, gguf)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_parent_and_tokens_of_a_base_manifest(tmp_path: Path) -> None:
    directory = save_tiny_llama(tmp_path / "first")
    model, tokenizer = load_model(directory), load_tokenizer(directory)
    first = base_manifest(directory, model, tokenizer)
    assert first.parent is None
    assert (first.dtype, first.max_context, first.bytes_per_parameter) == ("fp32", 256, 4.0)
    # Embedding (tied) 320x64, two layers of attention, MLP and norms, the last norm.
    layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64
    assert first.parameters == 320 * 64 + 2 * layer + 64
    seal(directory, first)
    second = base_manifest(directory, model, tokenizer)
    assert second.parent is not None
    assert (second.parent.name, second.parent.manifest_sha256) == ("first", manifest_sha256(directory))
    assert (directory / MANIFEST_NAME).is_file()


def test_stop_tokens_come_from_everywhere(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    directory = save_tiny_llama(tmp_path / "m", tokenizer=tokenizer, eos_token_id=0)
    model = load_model(directory)
    tokens = base_manifest(directory, model, load_tokenizer(directory)).tokens
    assert set(tokens.eos) == {0, 2}
    tokenizer.eos_token = "<|endoftext|>"
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    tokens = base_manifest(directory, model, tokenizer).tokens
    assert tokens.eos == [0]
    assert tokens.stop == [0, 2]  # the template ends a turn with <|im_end|>
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert base_manifest(directory, model, tokenizer).tokens.stop == [0]


def test_hub_id_offline_says_so() -> None:
    assert describe_source("owner/model").kind == "hub"
    with pytest.raises(CheckpointError, match=r"owner/model: it is no directory here, and the hub"):
        load_model("owner/model")
    with pytest.raises(CheckpointError, match=r"the tokenizer of owner/model"):
        load_tokenizer("owner/model")


@pytest.mark.parametrize("name", ["/no/such/place", "out/demo/adapter", "./model", "model.gguf"])
def test_missing_path(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name} does not exist"):
        load_model(name)


def test_what_is_no_checkpoint(tmp_path: Path, tiny_llama_dir: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no weights"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="give the directory"):
        load_model(tiny_llama_dir / "model.safetensors")
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        load_model(tiny_llama_dir, dtype="int8")
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        load_model(tiny_llama_dir, device="tpu")


def test_remote_code_is_off_unless_asked_for(tiny_llama_dir: Path, tmp_path: Path) -> None:
    directory = tmp_path / "remote"
    shutil.copytree(tiny_llama_dir, directory)
    config = json.loads((directory / "config.json").read_text())
    config["model_type"] = "our_own"
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'our_own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        load_model(directory)
    model = load_model(directory, trust_remote_code=True)
    assert base_manifest(directory, model, load_tokenizer(tiny_llama_dir)).remote_code


def test_nf4_takes_odd_layers_and_fused_experts(tmp_path: Path) -> None:
    odd = save_tiny_llama(tmp_path / "odd", hidden_size=96, intermediate_size=200)
    assert torch.isfinite(logits(load_model(odd, quantization="nf4", device="cpu"))).all()
    experts = save_tiny_mixture(tmp_path / "moe", "mixtral")
    assert torch.isfinite(logits(load_model(experts, quantization="nf4", device="cpu"))).all()
