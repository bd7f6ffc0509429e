"""Routers of real model classes: found by type, recorded once, limited to their capacity."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from tests.training.moe.models import CHOICES, EXPERTS, MODELS, tiny_moe
from training.moe.recorder import RouterRecorder
from training.moe.routers import find_routers
from training.moe.statistics import ExpertStatistics

IDS = torch.randint(1, 320, (2, 10), generator=torch.Generator().manual_seed(1))
MASK = torch.ones_like(IDS)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_with_experts_has_its_router(name: str) -> None:
    model = tiny_moe(name)
    routers = find_routers(model)
    assert len(routers) == MODELS[name][2]
    assert {router.experts for router in routers} == {EXPERTS}
    assert all(router.scores_by_sigmoid == (name == "deepseek_v3") for router in routers)
    # A gated MLP's gate_proj is no router, whatever it is called.
    assert not any(router.name.endswith("_proj") for router in routers)


def test_a_dense_model_has_none() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    assert find_routers(LlamaForCausalLM(config)) == []


@pytest.mark.parametrize("name", MODELS)
def test_decisions_are_recorded_and_change_nothing(name: str) -> None:
    model = tiny_moe(name).eval()
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    recorder = RouterRecorder(find_routers(model), capacity_factor=0.5)  # not in evaluation
    with recorder.recording(MASK) as decisions:
        found = model(input_ids=IDS, attention_mask=MASK).logits
    assert torch.equal(found, expected)
    assert len(decisions) == MODELS[name][2]
    for decision in decisions:
        assert decision.logits.shape == (IDS.numel(), EXPERTS)
        assert decision.indices.shape == (IDS.numel(), CHOICES)
        assert decision.kept.all()


def test_gradient_checkpointing_counts_once_and_drops_the_same() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = tiny_moe("qwen3_moe").train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        recorder = RouterRecorder(find_routers(model), capacity_factor=0.75)
        with recorder.recording(MASK) as decisions:
            loss = model(input_ids=IDS, attention_mask=MASK, labels=IDS, use_cache=False).loss
        loss.backward()
        assert len(decisions) == 2
        assert not all(decision.kept.all() for decision in decisions)
        gradients.append(model.get_input_embeddings().weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_what_is_dropped_has_no_weight() -> None:
    """With no capacity left for anybody, experts add nothing: the residual stream passes them by."""
    model = tiny_moe("mixtral").train()
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
    assert torch.equal(outputs[0].reshape(-1, 64)[gone], torch.zeros(int(gone.sum()), 64))
    assert (outputs[0].reshape(-1, 64)[~gone].abs().sum(dim=1) > 0).all()


def test_padding_is_counted_nowhere() -> None:
    model = tiny_moe("deepseek_v2").train()
    mask = MASK.clone()
    mask[1, 4:] = 0
    recorder = RouterRecorder(find_routers(model), capacity_factor=1.0)
    statistics = ExpertStatistics()
    with recorder.recording(mask) as decisions:
        model(input_ids=IDS, attention_mask=mask)
    assert decisions[0].kept[~decisions[0].counted].all()
    statistics.add(decisions)
    (row,) = statistics.take().values()
    assert sum(row["load"]) == pytest.approx(EXPERTS, abs=1e-3)
    assert 0 < row["entropy"] <= 1
    assert statistics.take() == {}


def test_a_router_that_peft_copied_is_the_same_router() -> None:
    model = tiny_moe("qwen3_moe")
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
