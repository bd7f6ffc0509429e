"""KV cache, padding, gradient checkpointing, accumulation: what changes how it runs, not what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.loading import load_model
from tests.checkpoints.architectures.test_numerics import rows


@pytest.fixture
def model(published_dir: Path) -> Any:
    return load_model(published_dir)


@torch.inference_mode()
def test_with_a_cache_it_generates_what_it_would_recompute(model: Any) -> None:
    ids = torch.tensor(rows(2, 7))
    options = {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    cached = model.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    assert len(set(cached[0, 7:].tolist())) > 3
    whole = model(cached).logits
    cache, steps = None, []
    for position in range(cached.shape[1]):
        output = model(cached[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.inference_mode()
def test_left_padding_changes_nothing(model: Any, attention: str) -> None:
    model.set_attn_implementation(attention)
    short, long = rows(1, 5)[0], rows(2, 9)[1]
    batch = torch.tensor([[0] * 4 + short, long])
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    padded = model(batch, attention_mask=mask, position_ids=positions).logits
    alone = model(torch.tensor([short])).logits[0]
    torch.testing.assert_close(padded[0, 4:], alone, atol=1e-4, rtol=0)
    # and without the mask it does
    assert (model(batch).logits[0, 4:] - alone).abs().max() > 1e-2
    options = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    together = model.generate(batch, attention_mask=mask, **options)
    assert torch.equal(together[0, 9:], model.generate(torch.tensor([short]), **options)[0, 5:])


def gradients(model: Any, ids: torch.Tensor, **options: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = model.train()(ids, labels=ids, **options).loss
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters()}
    return {**found, "loss": loss.detach()}


def test_gradient_checkpointing_changes_no_gradient(model: Any) -> None:
    ids = torch.tensor(rows())
    expected = gradients(model, ids)
    model.activation_checkpointing_enable()
    calls = []
    router = model.model.layers[1].mlp.gate
    router.register_forward_hook(lambda *_: calls.append(1))
    found = gradients(model, ids)
    assert len(calls) == 2  # forward, and again in the backward pass
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_checkpointing_that_would_lose_the_balance_loss_is_refused(model: Any) -> None:
    model.activation_checkpointing_enable({"use_reentrant": True})
    ids = torch.tensor(rows())
    with pytest.raises(ValueError, match=r"use_reentrant=False.*aux_loss_alpha"):
        model.train()(ids, labels=ids)
    model.config.aux_loss_alpha = 0.0
    model(ids, labels=ids).loss.backward()
    model.config.aux_loss_alpha = 0.1
    for layer in model.model.layers[1:]:  # frozen routers do not learn from it anyway
        layer.mlp.gate.weight.requires_grad_(False)
    assert model(ids, labels=ids).aux_loss > 0


def test_accumulated_batches_weigh_the_balance_loss_once(model: Any) -> None:
    batch = torch.tensor(rows(4))
    whole = gradients(model, batch)
    model.zero_grad()
    targets = 4 * 8
    loss = torch.zeros(())
    for half in batch.split(2):
        part = model(half, labels=half, num_items_in_batch=torch.tensor(targets)).loss
        part.backward()
        loss += part.detach()
    # seq_aux: the balance loss of a batch is the mean of its rows', so halves add up to it.
    torch.testing.assert_close(loss, whole["loss"], atol=1e-5, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], atol=1e-5, rtol=1e-4, msg=name)


def test_router_logits_are_given_when_asked_for(model: Any) -> None:
    ids = torch.tensor(rows())
    assert model(ids).router_logits is None
    assert model.train()(ids, labels=ids).router_logits is None
    logits = model(ids, output_router_logits=True).router_logits
    assert [tuple(one.shape) for one in logits] == [(18, 8), (18, 8)]


@torch.inference_mode()
def test_the_gate_stays_in_float32(model: Any) -> None:
    ids = torch.tensor(rows())
    narrow = model.to(torch.bfloat16)
    output = narrow(ids, output_router_logits=True)
    assert output.logits.dtype == torch.bfloat16
    assert {one.dtype for one in output.router_logits} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        output = model.float()(ids, output_router_logits=True)
    assert {one.dtype for one in output.router_logits} == {torch.float32}
    # A float32 value that came out of a bfloat16 product would survive the round trip.
    assert any((one != one.bfloat16().float()).any() for one in output.router_logits)
