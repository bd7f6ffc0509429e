"""Routers of real model classes: found by type, recorded once, limited to their capacity."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from checkpoints.errors import ConfigError
from checkpoints.nf4_experts import fused_experts
from checkpoints.routers import Router, find_routers
from tests.tiny_mixtures import MIXTURES, build_tiny_mixture
from tests.training.moe.reference import kept_by_gshard
from training.moe.recorder import RouterRecorder
from training.moe.statistics import ExpertStatistics

EXPERTS, CHOICES, HIDDEN = 4, 2, 64
IDS = torch.randint(1, 256, (2, 10), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)


def layers_of(name: str) -> int:
    return 2 - MIXTURES[name].get("first_k_dense_replace", 0)


@pytest.mark.parametrize("name", MIXTURES)
def test_every_layer_with_experts_has_its_router(name: str) -> None:
    model = build_tiny_mixture(name)
    routers = find_routers(model)
    assert len(routers) == layers_of(name)
    assert {router.experts for router in routers} == {EXPERTS}
    assert all(router.scores_by_sigmoid == (name == "deepseek_v3") for router in routers)
    # gate_proj of a gated MLP and the gate of a shared expert are linear layers and no routers.
    assert not any(isinstance(module, nn.Linear) for router in routers for module in router.modules)


def test_a_dense_model_has_none() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    assert find_routers(LlamaForCausalLM(config)) == []


@pytest.mark.parametrize("name", MIXTURES)
def test_decisions_are_recorded_and_change_nothing_in_evaluation(name: str) -> None:
    model = build_tiny_mixture(name)
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    recorder = RouterRecorder(find_routers(model), capacity_factor=0.5)
    with recorder.recording(MASK) as decisions:
        found = model(input_ids=IDS, attention_mask=MASK).logits
    assert torch.equal(found, expected)
    assert len(decisions) == layers_of(name)
    for decision in decisions:
        assert decision.logits.shape == (IDS.numel(), EXPERTS)
        assert decision.indices.shape == (IDS.numel(), CHOICES)
        assert decision.kept.all()


# DeepSeek-V2 and V3 in the number of experts in which torch.topk(sorted=False) does give them unsorted.
UNSORTED = {"n_routed_experts": 64, "num_experts_per_tok": 6}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [*((name, {}) for name in MIXTURES), ("deepseek_v2", UNSORTED), ("deepseek_v3", UNSORTED)],
    ids=[*MIXTURES, "deepseek_v2-64", "deepseek_v3-64"],
)
def test_exactly_what_gshard_drops_is_dropped(name: str, sizes: dict[str, int]) -> None:
    """Its weight is 0 where the experts get it, and only there."""
    model = build_tiny_mixture(name, **sizes).train()
    experts = sizes.get("n_routed_experts", EXPERTS)
    routed: list[tuple[torch.Tensor, ...]] = []
    find_routers(model)[-1].modules[0].register_forward_hook(
        lambda module, inputs, output: routed.append(output)
    )
    mask = MASK.clone()
    mask[1, 7:] = 0
    *_, last = fused_experts(model).values()
    seen: list[tuple[torch.Tensor, ...]] = []
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    recorder = RouterRecorder(find_routers(model), capacity_factor=0.75)
    with recorder.recording(mask) as decisions:
        model(input_ids=IDS, attention_mask=mask)
    _, indices, weights = seen[0]
    wanted = routed[0][1]  # before any is dropped
    if sizes:
        assert (wanted[:, :-1] < wanted[:, 1:]).any()
    expected = kept_by_gshard(indices, wanted, mask.reshape(-1) != 0, experts, 0.75)
    assert torch.equal(decisions[-1].kept, expected)
    assert torch.equal(weights != 0, expected)
    assert not expected.all()


def test_a_token_that_all_experts_drop_passes_them_by() -> None:
    model = build_tiny_mixture("mixtral").train()
    recorder = RouterRecorder(find_routers(model), capacity_factor=1.0)
    outputs: list[torch.Tensor] = []
    layer = model.model.layers[0].mlp
    layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
    # All tokens want the same two experts, so a half of all assignments is beyond the capacity.
    with torch.no_grad():
        layer.gate.weight.zero_()
    with recorder.recording(MASK) as decisions:
        model(input_ids=IDS, attention_mask=MASK)
    first = decisions[0]
    assert int((~first.kept).sum()) == IDS.numel() * CHOICES // 2
    gone = ~first.kept.any(dim=1)
    assert gone.any()
    rows = outputs[0].reshape(-1, HIDDEN)
    assert torch.equal(rows[gone], torch.zeros(int(gone.sum()), HIDDEN))
    assert (rows[~gone].abs().sum(dim=1) > 0).all()


def test_gradient_checkpointing_counts_once_and_drops_the_same() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build_tiny_mixture("deepseek", num_hidden_layers=3).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        recorder = RouterRecorder(find_routers(model), capacity_factor=0.75)
        with recorder.recording(MASK) as decisions:
            loss = model(input_ids=IDS, attention_mask=MASK, labels=IDS, use_cache=False).loss
        loss.backward()
        assert len(decisions) == 2
        assert not all(decision.kept.all() for decision in decisions)
        gradients.append(model.get_input_embeddings().weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_padding_is_counted_nowhere() -> None:
    model = build_tiny_mixture("deepseek_v2").train()
    mask = MASK.clone()
    mask[1, 4:] = 0
    recorder = RouterRecorder(find_routers(model), capacity_factor=1.0)
    statistics = ExpertStatistics()
    with recorder.recording(mask) as decisions:
        model(input_ids=IDS, attention_mask=mask)
    assert decisions[0].kept[~decisions[0].counted].all()
    statistics.add(decisions, torch.tensor(1.5))
    layers, balance = statistics.take()
    (row,) = layers.values()
    counts = torch.bincount(decisions[0].indices[mask.reshape(-1) != 0].reshape(-1), minlength=EXPERTS)
    assert row["load"] == pytest.approx((counts * EXPERTS / (14 * CHOICES)).tolist(), abs=1e-4)
    shares = torch.distributions.Categorical(probs=counts.double())
    assert row["entropy"] == pytest.approx(float(shares.entropy()) / float(torch.tensor(4.0).log()), abs=1e-4)
    assert balance == 1.5
    assert statistics.take() == ({}, None)


def test_a_router_that_peft_copied_is_the_same_router() -> None:
    model = build_tiny_mixture("qwen3_moe")
    names = [router.name for router in find_routers(model)]
    wrapped = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=names)
    )
    routers = find_routers(wrapped)
    assert [router.name for router in routers] == names
    assert all(len(router.modules) == 2 for router in routers)
    recorder = RouterRecorder(routers)
    with recorder.recording(MASK) as decisions:
        wrapped(input_ids=IDS, attention_mask=MASK)
    assert len(decisions) == 2


def test_a_router_of_another_form_is_left_alone_unless_something_must_be_dropped() -> None:
    odd = nn.Linear(4, EXPERTS)  # gives logits alone
    router = Router("layer.gate", (odd,), EXPERTS)
    inputs = torch.randn(3, 4)
    expected = odd(inputs)
    RouterRecorder([router])
    assert torch.equal(odd(inputs), expected)
    RouterRecorder([router], capacity_factor=1.2)
    with pytest.raises(ConfigError, match=r"expert_capacity_factor = 1.2: the router layer\.gate \(Linear\)"):
        odd(inputs)
