"""Mixtures of experts in NF4 as checkpoints: quantized, saved, reloaded, trained on, taken apart again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.loading import describe_source, load_model
from checkpoints.manifest import Manifest, read_manifest
from checkpoints.nf4 import check_quantizable
from checkpoints.nf4_experts import packed_experts
from checkpoints.quantize import QuantizeConfig, quantize
from tests.checkpoints.test_loading import IDS, logits
from tests.tiny_mixtures import MIXTURES, save_tiny_mixture
from tests.tiny_models import build_tiny_llama
from trimaran.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=MIXTURES)
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one mixture: ``source``, and ``nf4`` made from it."""
    folder = tmp_path_factory.mktemp(request.param)
    source = save_tiny_mixture(folder / "source", request.param)
    quantize(QuantizeConfig(source, folder / "nf4", fidelity=False))
    return folder


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixtral-alone")
    source = save_tiny_mixture(folder / "source", "mixtral")
    quantize(QuantizeConfig(source, folder / "nf4", fidelity=False))
    return folder


def exact(source: Path, **options: Any) -> Any:
    """An NF4 model that multiplies in fp32, with Linear layers in the layout that bitsandbytes trains in."""
    model = load_model(source, quantization="nf4", dtype="fp32", device="cpu", **options)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def reasons(manifest: Manifest) -> dict[str, str]:
    return {tensor.name: tensor.reason for tensor in manifest.kept_16bit}


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def test_what_is_reloaded_is_what_was_packed_bit_for_bit(sources: Path) -> None:
    in_memory = load_model(sources / "source", quantization="nf4", device="cpu")
    assert describe_source(sources / "nf4").kind == "nf4"
    ours = load_model(sources / "nf4", device="cpu")
    plain = AutoModelForCausalLM.from_pretrained(sources / "nf4").eval()
    expected = state(in_memory)
    for model in (ours, plain):
        assert_same(state(model), expected)
        assert len(packed_experts(model)) == len(packed_experts(in_memory)) > 0
        assert not any(
            value.requires_grad for e in packed_experts(model).values() for value in e.parameters()
        )
    reference = logits(in_memory)
    assert torch.equal(logits(ours), reference)
    assert torch.equal(logits(plain), reference)


def test_it_is_saved_again_as_it_was_after_it_has_run(sources: Path, tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(sources / "nf4").eval()
    experts = {name: state(module) for name, module in packed_experts(plain).items()}
    before = logits(plain)
    plain.save_pretrained(tmp_path / "again")
    again = load_model(tmp_path / "again", device="cpu")
    for name, module in packed_experts(again).items():
        assert_same(state(module), experts[name])
    if not any(getattr(m.weight.quant_state, "original_dtype", None) for m in linears(plain)):
        # Elsewhere bitsandbytes has rounded the scales of Linear layers; see nf4.keep_scales.
        assert torch.equal(logits(again), before)


def linears(model: Any) -> list[Linear4bit]:
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def test_logits_are_those_of_the_model_with_dequantized_experts(sources: Path) -> None:
    model, dense = exact(sources / "source"), exact(sources / "source")
    for name, experts in packed_experts(dense).items():
        dense.set_submodule(name, experts.unpack(torch.float32))
    assert not packed_experts(dense)
    found, expected = logits(model), logits(dense)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    original = logits(load_model(sources / "source", device="cpu"))
    assert (found - original).norm() > 100 * (found - expected).norm()


def test_gradients_reach_the_inputs(sources: Path) -> None:
    model, dense = exact(sources / "source"), exact(sources / "source")
    for name, experts in packed_experts(dense).items():
        dense.set_submodule(name, experts.unpack(torch.float32))
    gradients = []
    for one in (model, dense):
        embedded = one.get_input_embeddings()(IDS).detach().requires_grad_()
        one(inputs_embeds=embedded, labels=IDS).loss.backward()
        gradients.append(embedded.grad)
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_the_manifest_names_what_was_packed_and_what_was_not(sources: Path) -> None:
    manifest = read_manifest(sources / "nf4", verify=True)
    source = load_model(sources / "source", device="cpu")
    assert manifest.needs_import
    assert manifest.parameters == source.num_parameters()
    quantization = manifest.quantization
    assert quantization is not None
    assert quantization["method"] == "nf4"
    assert quantization["packed_bytes_per_parameter"] <= 0.57
    kept = reasons(manifest)
    parameters = {**dict(source.named_parameters()), **dict(source.named_buffers())}
    assert quantization["packed_parameters"] == manifest.parameters - sum(
        parameters[name].numel() for name in kept if name in dict(source.named_parameters())
    )
    assert not [name for name in kept if "experts." in name and ".shared" not in name]
    routers = [name for name, reason in kept.items() if reason == "router"]
    assert routers
    assert all(".mlp.gate." in name for name in routers)
    gates = [name for name, reason in kept.items() if reason == "gate of the shared expert"]
    assert len(gates) == (2 if "qwen2_moe" in sources.name else 0)
    biased = [name for name in kept if name.endswith("e_score_correction_bias")]
    assert len(biased) == (1 if "deepseek_v3" in sources.name else 0)
    known = {"embedding", "lm_head", "norm", "bias", "router", "gate of the shared expert"}
    assert set(kept.values()) <= known


def test_the_files_hold_plain_tensors_under_clear_names(sources: Path) -> None:
    tensors = load_file(sources / "nf4" / "model.safetensors")
    experts = {name: value for name, value in tensors.items() if ".experts." in name}
    assert {name.rpartition(".")[2]: (value.dtype, value.ndim) for name, value in experts.items()} == {
        "gate_up_proj_packed": (torch.uint8, 2),
        "gate_up_proj_absmax": (torch.float32, 2),
        "down_proj_packed": (torch.uint8, 2),
        "down_proj_absmax": (torch.float32, 2),
    }
    settings = json.loads((sources / "nf4" / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "trimaran_nf4"
    assert settings["bnb_4bit_quant_type"] == "nf4"
    assert "load_in_4bit" not in settings


def test_double_quantization(tmp_path: Path) -> None:
    wide = {"hidden_size": 128, "moe_intermediate_size": 128}
    source = save_tiny_mixture(tmp_path / "source", "qwen3_moe", **wide)
    output = quantize(QuantizeConfig(source, tmp_path / "nf4", double_quantization=True))
    manifest = read_manifest(output)
    assert manifest.quantization is not None
    assert manifest.quantization["packed_bytes_per_parameter"] <= 0.53
    assert 0 < manifest.metrics["fidelity"]["mean_kl"] < 10
    in_memory = load_model(source, quantization="nf4", double_quantization=True, device="cpu")
    again = load_model(output, device="cpu")
    assert_same(state(again), state(in_memory))
    assert all(experts.double_quantization for experts in packed_experts(again).values())
    assert torch.isfinite(logits(again)).all()
    single = exact(source)
    double = exact(source, double_quantization=True)
    difference = (logits(single) - logits(double)).norm() / logits(single).norm()
    assert 0 < difference < 0.1


def test_sizes_that_are_no_multiple_of_64(tmp_path: Path) -> None:
    odd = {"hidden_size": 72, "moe_intermediate_size": 36, "head_dim": 18}
    source = save_tiny_mixture(tmp_path / "source", "qwen3_moe", **odd)
    output = quantize(QuantizeConfig(source, tmp_path / "nf4", fidelity=False))
    in_memory = load_model(source, quantization="nf4", device="cpu")
    again = load_model(output, device="cpu")
    assert_same(state(again), state(in_memory))
    assert torch.equal(logits(again), logits(in_memory))
    plain = AutoModelForCausalLM.from_pretrained(output).eval()
    assert torch.equal(logits(plain), logits(in_memory))


def test_every_kind_of_file_is_packed_alike(mixtral: Path, tmp_path: Path) -> None:
    expected = state(load_model(mixtral / "source", quantization="nf4", device="cpu"))
    states = tmp_path / "states"
    states.mkdir()
    for path in (mixtral / "source").glob("*.json"):
        (states / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(mixtral / "source" / "model.safetensors"), states / "pytorch_model.bin")
    assert_same(state(load_model(states, quantization="nf4", device="cpu")), expected)

    fused = tmp_path / "fused"
    model = load_model(mixtral / "source", device="cpu")
    model.save_pretrained(fused, save_original_format=False)
    assert any(name.endswith("experts.gate_up_proj") for name in load_file(fused / "model.safetensors"))
    assert_same(state(load_model(fused, quantization="nf4", device="cpu")), expected)


def test_a_lost_tensor_is_an_error(mixtral: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in (mixtral / "nf4").glob("*.json"):
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(mixtral / "nf4" / "model.safetensors")
    lost = next(name for name in tensors if name.endswith("down_proj_absmax"))
    save_file({name: value for name, value in tensors.items() if name != lost}, broken / "model.safetensors")
    with pytest.raises(Exception, match=r"lacks weights.*down_proj_absmax"):
        load_model(broken)


def test_the_model_can_be_had_in_plain_weights_again(sources: Path, tmp_path: Path) -> None:
    packed = exact(sources / "source")
    expected = logits(packed)
    plain = packed.dequantize(dtype=torch.float32)
    assert not packed_experts(plain)
    assert not linears(plain)
    torch.testing.assert_close(logits(plain), expected, rtol=1e-4, atol=1e-4)
    plain.save_pretrained(tmp_path / "plain")
    again = load_model(tmp_path / "plain", device="cpu")
    assert again.config.model_type == plain.config.model_type
    torch.testing.assert_close(logits(again), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_trains_on_it(mixtral: Path, checkpointing: bool) -> None:
    """QLoRA: the gradient passes through the packed experts of the upper layer."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    model = load_model(mixtral / "nf4", device="cpu")
    for module in linears(model):
        module.support_avx512bf16_for_cpu = False
    frozen = {name: state(experts) for name, experts in packed_experts(model).items()}
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    losses = []
    for _ in range(6):
        loss = tuned(input_ids=IDS, labels=IDS).loss
        loss.backward()
        lowest = tuned.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.lora_B.default")
        assert lowest.weight.grad.norm() > 0
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, experts in packed_experts(model).items():
        assert_same(state(experts), frozen[name])


def test_stacks_of_weights_that_are_not_known_are_refused_by_name(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = build_tiny_llama(tiny_tokenizer)
    model.get_submodule("model.layers.1.mlp").experts = torch.nn.Parameter(torch.zeros(4, 64, 64))
    with pytest.raises(UnsupportedCheckpoint, match=r"16 bits.*model\.layers\.1\.mlp\.experts \(LlamaMLP\)"):
        check_quantizable(model)


def test_the_command_prints_what_was_packed_and_what_was_not(
    mixtral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "nf4"
    assert main(["quantize", str(mixtral / "source"), "--output", str(output), "--no-fidelity"]) == 0
    printed = capsys.readouterr().out
    assert "0.5625 bytes each" in printed
    assert "model.layers.*.mlp.gate.weight (2 times), bfloat16: router" in printed
    assert "model.embed_tokens.weight, bfloat16: embedding" in printed
    assert printed.rstrip().endswith(f"checkpoint: {output}")


@pytest.mark.parametrize("order", ["import checkpoints\n{}", "{}\nimport checkpoints"])
def test_plain_transformers_reads_it_after_the_import(mixtral: Path, order: str) -> None:
    code = order.format("from transformers import AutoModelForCausalLM")
    done = _python(f"{code}\nmodel = AutoModelForCausalLM.from_pretrained({str(mixtral / 'nf4')!r})\n"
                   "print(type(model.model.layers[0].mlp.experts).__name__)")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "NF4Experts"


def test_without_the_import_it_is_refused_and_not_read_wrongly(mixtral: Path) -> None:
    done = _python(
        "from transformers import AutoModelForCausalLM\n"
        f"AutoModelForCausalLM.from_pretrained({str(mixtral / 'nf4')!r})"
    )
    assert done.returncode != 0
    assert "trimaran_nf4" in done.stderr
    assert "mismatch" in done.stderr.lower()


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
