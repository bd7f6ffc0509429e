"""Published checkpoints load without remote code, and are written back as they were."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from checkpoints.architectures.deepseek import DeepseekConfig, DeepseekForCausalLM, DeepseekModel
from checkpoints.errors import CheckpointError
from checkpoints.inspect import InspectConfig, inspect_checkpoint
from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import seal
from tests.checkpoints.architectures.published import published_config, published_weights, write_published
from tests.checkpoints.test_loading import logits


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_native_class_wins_whatever_is_said_about_remote_code(published_dir: Path) -> None:
    for trust in (None, False, True):
        model = AutoModelForCausalLM.from_pretrained(published_dir, trust_remote_code=trust)
        assert type(model) is DeepseekForCausalLM
    assert type(AutoModel.from_pretrained(published_dir)) is DeepseekModel
    config = AutoConfig.from_pretrained(published_dir)
    assert type(config) is DeepseekConfig
    assert (config.num_experts, config.router_aux_loss_coef) == (8, 0.1)
    assert config.rope_parameters["rope_theta"] == 10000


def test_experts_are_fused_in_transformers_layout(published_dir: Path) -> None:
    weights = load_file(published_dir / "model.safetensors")
    model = load_model(published_dir)
    assert not hasattr(model.model.layers[0].mlp, "experts")
    for layer in (1, 2):
        prefix = f"model.layers.{layer}.mlp.experts"
        experts = model.model.layers[layer].mlp.experts
        assert experts.gate_up_proj.shape == (8, 64, 64)
        assert experts.down_proj.shape == (8, 64, 32)
        for expert in range(8):
            gate_up = torch.cat(
                [weights[f"{prefix}.{expert}.{name}.weight"] for name in ("gate_proj", "up_proj")]
            )
            assert torch.equal(experts.gate_up_proj[expert], gate_up)
            assert torch.equal(experts.down_proj[expert], weights[f"{prefix}.{expert}.down_proj.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["50GB", "100KB"])
def test_saved_again_it_is_bit_for_bit_the_same(dtype: torch.dtype, shard: str, tmp_path: Path) -> None:
    # More than ten experts: their order is not that of their names.
    config = published_config(n_routed_experts=12, torch_dtype=str(dtype).removeprefix("torch."))
    weights = {name: value.to(dtype) for name, value in published_weights(config).items()}
    source = write_published(tmp_path / "source", config, weights)
    load_model(source).save_pretrained(tmp_path / "copy", max_shard_size=shard)
    files = sorted((tmp_path / "copy").glob("*.safetensors"))
    assert (len(files) > 1) == (shard == "100KB")
    found = {name: value for file in files for name, value in load_file(file).items()}
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], value), name
    assert torch.equal(logits(load_model(tmp_path / "copy")), logits(load_model(source)))


def test_a_copy_does_not_name_remote_code_it_does_not_have(published_dir: Path, tmp_path: Path) -> None:
    load_model(published_dir).save_pretrained(tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert "auto_map" not in config
    assert (config["model_type"], config["n_routed_experts"]) == ("deepseek", 8)
    assert config["architectures"] == ["DeepseekForCausalLM"]


def test_a_model_made_from_a_config_has_the_published_names(tmp_path: Path) -> None:
    settings = published_config()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(DeepseekConfig(**settings))
    deviation = float(model.model.layers[1].mlp.experts.gate_up_proj.detach().std())
    assert deviation == pytest.approx(settings["initializer_range"], rel=0.1)
    model.save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == published_weights(settings).keys()


def test_a_pytorch_state_dict_loads_too(published_dir: Path, tmp_path: Path) -> None:
    source = write_published(tmp_path / "states", published_config())
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    assert torch.equal(logits(load_model(source)), logits(load_model(published_dir)))


def test_a_missing_expert_is_an_error(tmp_path: Path) -> None:
    config = published_config()
    weights = {name: value for name, value in published_weights(config).items() if ".experts.7." not in name}
    source = write_published(tmp_path / "source", config, weights)
    with pytest.raises(CheckpointError):
        load_model(source)


def test_the_manifest_says_what_plain_transformers_needs(published_dir: Path, tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", published_config())
    manifest = base_manifest(source, load_model(source), load_tokenizer(source))
    assert manifest.needs_import
    assert not manifest.remote_code
    assert manifest.parameters == sum(
        value.numel() for value in published_weights(published_config()).values()
    )
    seal(source, manifest)
    assert "needs           import checkpoints, before from_pretrained" in inspect_checkpoint(
        InspectConfig(source)
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_experts_per_tok": 9}, r"num_experts_per_tok is 9, expected 1 to n_routed_experts \(8\)"),
        ({"num_experts_per_tok": None}, "num_experts_per_tok is None"),
        ({"scoring_func": "sigmoid"}, "scoring_func is 'sigmoid', expected softmax"),
        ({"moe_layer_freq": 0}, "moe_layer_freq is 0, expected 1 or more"),
        ({"routed_scaling_factor": 16.0}, "routed_scaling_factor is 16.0, .*would be ignored; expected 1.0"),
        ({"topk_method": "group_limited_greedy"}, "topk_method is 'group_limited_greedy', .*deepseek_v2"),
        ({"n_group": 8}, "n_group is 8, which DeepSeek-MoE does not have"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    source = write_published(tmp_path / "source", published_config(), {})
    (source / "config.json").write_text(json.dumps(published_config(**changes)))
    with pytest.raises(CheckpointError, match=reason):
        load_model(source)


def test_import_checkpoints_is_free_and_enough(published_dir: Path) -> None:
    done = python(
        "import sys, checkpoints\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "from transformers.modeling_utils import PreTrainedModel\n"  # in the middle of the circle
        "assert 'checkpoints.architectures.deepseek.modeling' not in sys.modules\n"
        "from transformers import AutoModelForCausalLM\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(published_dir)!r})\n"
        "print(type(model).__name__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "DeepseekForCausalLM"


def test_it_may_come_after_transformers_and_is_needed(published_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    load_model(published_dir).save_pretrained(copy)
    done = python(
        "from transformers import AutoModelForCausalLM\n"
        f"try:\n    AutoModelForCausalLM.from_pretrained({str(copy)!r})\n"
        "except ValueError as error:\n    assert 'deepseek' in str(error), error\n"
        "else:\n    raise SystemExit('transformers has it now')\n"
        "import checkpoints\n"
        f"print(type(AutoModelForCausalLM.from_pretrained({str(copy)!r})).__name__)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "DeepseekForCausalLM"
