"""Dropping experts: which ones go, what is left, what is measured, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoints.errors import CheckpointError, ConfigError, UnsupportedCheckpoint
from checkpoints.expert_usage import ExpertUsage, find_mixtures, keep_experts, measure_usage
from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import manifest_sha256, read_manifest, seal
from checkpoints.prune_experts import PRUNABLE, PruneExpertsConfig, prune_experts
from tests.checkpoints.architectures.published import published_config, published_weights, write_published
from tests.checkpoints.test_loading import logits
from tests.tiny_mixtures import build_tiny_mixture
from tests.tiny_models import save_tiny_llama
from trimaran.cli import main

PREFERRED = {1: [0, 3, 4, 6], 2: [1, 2, 5, 7]}
"""Mixture layer -> the experts its skewed router ever chooses."""


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeepSeek-MoE whose routers choose 2 of 4 of their 8 experts, in each layer others.

    The first hidden dimension is large and positive in every token, so what the gates hold in their
    first column works as a bias, which the rest of a row cannot make up for.
    """
    config = published_config(num_experts_per_tok=2, norm_topk_prob=True)
    weights = published_weights(config)
    weights["model.embed_tokens.weight"] *= 12  # or all tokens would be much alike
    weights["model.embed_tokens.weight"][:, 0] = 12
    for layer, experts in PREFERRED.items():
        gate = weights[f"model.layers.{layer}.mlp.gate.weight"]
        gate[:, 0] = 0
        gate[experts, 0] = 4
    return write_published(tmp_path_factory.mktemp("skewed") / "moe", config, weights)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = [
        "The quick brown fox jumps over the lazy dog.",
        "你好，世界。今天的天气很好。",
        "def add(a, b): return a",
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_what_no_token_goes_to_is_dropped_without_a_trace(skewed: Path, rows: Path, tmp_path: Path) -> None:
    done = prune_experts(PruneExpertsConfig(skewed, 4, tmp_path / "four", calibration=rows))
    assert (done.experts_before, done.experts, done.share) == (8, 4, 1.0)
    before, after = load_file(skewed / "model.safetensors"), load_file(done.path / "model.safetensors")
    for layer, kept in PREFERRED.items():
        prefix = f"model.layers.{layer}.mlp"
        assert torch.equal(after[f"{prefix}.gate.weight"], before[f"{prefix}.gate.weight"][kept])
        for new, old in enumerate(kept):
            for part in ("gate_proj", "up_proj", "down_proj"):
                name = f"{prefix}.experts.{{}}.{part}.weight"
                assert torch.equal(after[name.format(new)], before[name.format(old)])
        assert f"{prefix}.experts.4.gate_proj.weight" not in after
    untouched = [name for name in before if ".mlp.gate." not in name and ".experts." not in name]
    assert all(torch.equal(after[name], before[name]) for name in untouched)
    # The chosen weights are normalized, so experts that are never chosen have no say at all.
    pruned = load_model(done.path)
    assert pruned.config.n_routed_experts == 4
    torch.testing.assert_close(logits(pruned), logits(load_model(skewed)), atol=1e-4, rtol=0)
    assert done.fidelity is not None
    assert done.fidelity.mean_kl < 1e-6
    assert done.fidelity.perplexity_ratio == pytest.approx(1, abs=1e-5)


def test_fewer_than_are_used_keeps_the_most_used_and_says_what_it_cost(
    skewed: Path, rows: Path, tmp_path: Path
) -> None:
    done = prune_experts(PruneExpertsConfig(skewed, 3, tmp_path / "three", calibration=rows))
    manifest = read_manifest(done.path, verify=True)
    settings = manifest.settings["prune_experts"]
    assert done.fidelity is not None
    assert 0.5 < done.share < 1
    assert settings["share_of_choices_kept"] == pytest.approx(done.share, abs=1e-6)
    assert done.fidelity.mean_kl > 1e-4
    # The choices counted anew, from the router's logits and in the test's own way.
    model: Any = load_model(skewed)
    tokenizer = load_tokenizer(skewed)
    for place, (layer, preferred) in enumerate(PREFERRED.items()):
        counts = [0] * 8
        for line in rows.read_text(encoding="utf-8").splitlines():
            ids = tokenizer(json.loads(line)["text"], return_tensors="pt").input_ids
            routed = model(ids, output_router_logits=True).router_logits[place]
            for token in routed.tolist():
                for expert in sorted(range(8), key=lambda e, t=token: -t[e])[:2]:
                    counts[expert] += 1
        assert [expert for expert in range(8) if counts[expert]] == preferred
        assert len(set(counts)) == 5  # no ties among the four that are used
        expected = sorted(sorted(range(8), key=lambda expert, c=counts: -c[expert])[:3])
        assert settings["kept"][f"model.layers.{layer}.mlp"] == expected


def test_manifest_of_a_pruned_checkpoint(skewed: Path, rows: Path, tmp_path: Path) -> None:
    source = write_published(tmp_path / "moe", json.loads((skewed / "config.json").read_text()))
    whole = base_manifest(source, load_model(source), load_tokenizer(source))
    metrics = {**whole.metrics, "final_loss": 1.25, "perplexity": 99.0}
    seal(source, replace(whole, kind="full", method="full", metrics=metrics))
    done = prune_experts(PruneExpertsConfig(source, 5, tmp_path / "pruned", calibration=rows))
    manifest = read_manifest(done.path, verify=True)
    assert (manifest.kind, manifest.method, manifest.needs_import) == ("pruned", "full", True)
    assert manifest.base == whole.base
    assert manifest.parent is not None
    assert manifest.parent.manifest_sha256 == manifest_sha256(source)
    expert = 3 * 64 * 32 + 64  # three matrices and a row of the gate
    assert manifest.parameters == whole.parameters - 2 * 3 * expert
    assert manifest.metrics["final_loss"] == 1.25
    assert done.fidelity is not None
    assert manifest.metrics["fidelity"] == done.fidelity.as_dict()
    assert manifest.metrics["perplexity"] == done.fidelity.as_dict()["perplexity_candidate"] != 99.0
    settings = manifest.settings["prune_experts"]
    assert (settings["num_experts"], settings["num_experts_before"]) == (5, 8)
    assert settings["calibration"] == str(rows)
    assert settings["calibration_tokens"] == done.tokens > 30
    assert load_tokenizer(done.path).chat_template


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (9, r"num_experts is 9, but .*moe has 8 per layer; expected 2 \(num_experts_per_tok\) to 7"),
        (8, r"num_experts is 8, which is what .*moe has per layer; expected 2"),
        (1, r"num_experts is 1, but each token of .*moe goes to 2 experts; expected 2"),
    ],
)
def test_counts_that_cannot_be(wanted: int, reason: str, skewed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        prune_experts(PruneExpertsConfig(skewed, wanted, tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_experts is 0, expected 1 or more"):
        PruneExpertsConfig(tmp_path, 0, tmp_path / "out")
    with pytest.raises(ConfigError, match="output is the checkpoint itself"):
        PruneExpertsConfig(tmp_path, 4, tmp_path)


def test_what_has_no_experts_to_drop_is_refused(
    tiny_llama_dir: Path, merged: Path, packed: Path, tmp_path: Path
) -> None:
    dense = write_published(tmp_path / "dense", published_config())
    config = published_config(n_routed_experts=None, num_experts_per_tok=None)
    (dense / "config.json").write_text(json.dumps(config))
    for source, reason in (
        (tiny_llama_dir, "'llama', which has no routed experts"),
        (dense, "'deepseek', which has no routed experts"),
        (merged.parent / "adapter", "is an adapter; merge it first"),
        (packed, "is quantized; prune the checkpoint it was made from"),
    ):
        with pytest.raises(UnsupportedCheckpoint, match=reason):
            prune_experts(PruneExpertsConfig(source, 2, tmp_path / "out"))
    taken = save_tiny_llama(tmp_path / "taken")
    with pytest.raises(CheckpointError, match="is of model type"):
        prune_experts(PruneExpertsConfig(taken, 2, tmp_path / "out"))


def test_grouped_routing_is_refused(tmp_path: Path) -> None:
    settings = {"n_routed_experts": 8, "num_experts_per_tok": 2, "vocab_size": 320, "num_hidden_layers": 1}
    source = tmp_path / "v3"
    transformers.DeepseekV3Config(**settings).save_pretrained(source)
    (source / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")
    with pytest.raises(
        UnsupportedCheckpoint, match=r"'deepseek_v3', which does not route by a plain softmax"
    ):
        prune_experts(PruneExpertsConfig(source, 4, tmp_path / "out"))
    groups = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}
    transformers.DeepseekV2Config(**settings, **groups).save_pretrained(source)
    with pytest.raises(
        UnsupportedCheckpoint, match=r"chooses experts in groups here \(topk_method group_limited_greedy\)"
    ):
        prune_experts(PruneExpertsConfig(source, 4, tmp_path / "out"))


_MIXTURE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "num_experts_per_tok": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_LATENT = {
    "kv_lora_rank": 16, "q_lora_rank": None, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "first_k_dense_replace": 0, "n_shared_experts": 1,
}  # fmt: skip
OTHERS = {
    "deepseek_v2": ("DeepseekV2Config", "n_routed_experts"),  # as V2-Lite: topk_method is greedy
    "mixtral": ("MixtralConfig", "num_local_experts"),
    "olmoe": ("OlmoeConfig", "num_experts"),
    "qwen2_moe": ("Qwen2MoeConfig", "num_experts"),
    "qwen3_moe": ("Qwen3MoeConfig", "num_experts"),
}


def test_every_model_type_listed_is_shown() -> None:
    assert set(PRUNABLE) == {"deepseek", *OTHERS}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_mixtures(kind: str, tmp_path: Path) -> None:
    name, field = OTHERS[kind]
    torch.manual_seed(0)
    more = _LATENT if kind == "deepseek_v2" else {}
    config = getattr(transformers, name)(**{**_MIXTURE, **more}, **{field: 6})
    model = AutoModelForCausalLM.from_config(config).eval()
    source = tmp_path / "source"
    model.save_pretrained(source)
    load_tokenizer(write_published(tmp_path / "other", published_config())).save_pretrained(source)
    done = prune_experts(PruneExpertsConfig(source, 4, tmp_path / "pruned"))
    pruned: Any = load_model(done.path)
    assert pruned.config.model_type == kind
    assert pruned.config.num_experts == 4
    assert done.fidelity is not None
    assert done.fidelity.perplexity_ratio > 0
    settings = read_manifest(done.path).settings["prune_experts"]
    whole, parts = find_mixtures(model), find_mixtures(pruned)
    assert len(whole) == len(parts) == 2
    for layer, kept in settings["kept"].items():
        assert torch.equal(parts[layer].gate.weight, whole[layer].gate.weight[kept])
        assert torch.equal(parts[layer].experts.gate_up_proj, whole[layer].experts.gate_up_proj[kept])
        assert torch.equal(parts[layer].experts.down_proj, whole[layer].experts.down_proj[kept])
        assert parts[layer].gate.num_experts == 4
    # In memory it is the same model as the one that was written.
    keep_experts(model, settings["kept"])
    torch.testing.assert_close(logits(model), logits(pruned), atol=1e-5, rtol=0)


def test_a_router_is_known_by_its_type_and_not_by_its_name() -> None:
    """A linear layer called gate, of one row per expert, beside fused experts: not what chooses."""
    model = build_tiny_mixture("deepseek")
    block = model.model.layers[1].mlp
    block.router, block.gate = block.gate, torch.nn.Linear(64, 4, bias=False)
    assert {name: mixture.gate for name, mixture in find_mixtures(model).items()} == {
        "model.layers.1.mlp": block.router
    }


def test_usage_counts_each_choice_once(skewed: Path) -> None:
    model: Any = load_model(skewed)
    usage = measure_usage(model, [torch.arange(10, 40), torch.arange(100, 117)])
    assert usage.tokens == 47
    assert set(usage.choices) == {"model.layers.1.mlp", "model.layers.2.mlp"}
    for name, choices in usage.choices.items():
        assert int(choices.sum()) == 2 * 47
        assert float(usage.weight[name].sum()) == pytest.approx(47, rel=1e-4)  # normalized
    assert not any(module._forward_hooks for module in model.modules())


def test_ties_go_by_weight_then_by_index() -> None:
    def usage(choices: Sequence[int], weight: Sequence[float]) -> ExpertUsage:
        return ExpertUsage({"a": torch.tensor(choices)}, {"a": torch.tensor(weight)}, tokens=1)

    found = usage([3, 5, 3, 3, 0], [1.0, 2.0, 1.5, 1.0, 0.0])
    assert found.most_used(2) == {"a": [1, 2]}
    assert found.most_used(3) == {"a": [0, 1, 2]}
    assert found.share({"a": [0, 1, 2]}) == pytest.approx(11 / 14)


def test_the_command_says_what_it_cost(
    skewed: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "three"
    arguments = ["prune-experts", str(skewed), "--num-experts", "3", "--output", str(output)]
    assert main([*arguments, "--calibration", str(rows)]) == 0
    said = capsys.readouterr().out
    assert "experts: 3 of 8 per layer, which took " in said
    assert "perplexity: " in said
    assert " -> " in said
    assert f"checkpoint: {output}" in said
    assert main([*arguments[:3], "80", "--output", str(tmp_path / "out")]) == 2
    assert "num_experts is 80, but" in capsys.readouterr().err
