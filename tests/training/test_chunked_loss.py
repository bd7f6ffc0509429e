"""The loss in chunks: transformers' own number and gradients, without its memory."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import training.chunked_loss as module
from tests.tiny_models import build_tiny_llama
from training.chunked_loss import chunked_cross_entropy, chunked_loss
from training.methods.lora.config import LoraSettings
from training.methods.registry import load_method

VOCABULARY = 320


def batch(rows: int = 3, length: int = 24) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, :6] = -100
    labels[1, 15:] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


class Largest(TorchDispatchMode):
    """The most values of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, torch.Tensor):
                self.values = max(self.values, one.numel())
        return result


@pytest.mark.parametrize("bias", [False, True])
def test_value_and_gradients_are_those_of_cross_entropy(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_VALUES", 7 * 50)  # 7 positions at a time, the last chunk is smaller
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=bias).double()
    hidden = torch.randn(30, 16, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 50, (30,))
    expected = nn.functional.cross_entropy(head(hidden), labels, reduction="sum")
    wanted = torch.autograd.grad(3 * expected, [hidden, *head.parameters()])
    found = chunked_cross_entropy(hidden, head, labels)
    got = torch.autograd.grad(3 * found, [hidden, *head.parameters()])
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_gradients_in_bf16_are_not_rounded_as_a_whole() -> None:
    """1 / 997 is 0.4% off as a bf16 number, and every gradient with it."""
    torch.manual_seed(0)
    head = nn.Linear(16, 50, bias=False).bfloat16()
    hidden = torch.randn(30, 16).bfloat16().requires_grad_()
    labels = torch.randint(0, 50, (30,))
    (whole,) = torch.autograd.grad(chunked_cross_entropy(hidden, head, labels), [hidden])
    (scaled,) = torch.autograd.grad(chunked_cross_entropy(hidden, head, labels) / 997, [hidden])
    assert scaled.dtype == torch.bfloat16
    ratio = scaled.double().norm() / whole.double().norm() * 997
    assert float(ratio) == pytest.approx(1.0, abs=5e-4)


@pytest.mark.parametrize("count", [None, 40, torch.tensor(40)])
def test_a_model_gets_the_same_gradients(tiny_tokenizer: PreTrainedTokenizerFast, count: Any) -> None:
    gradients, losses = [], []
    for chunked in (False, True):
        model = build_tiny_llama(tiny_tokenizer)
        torch.manual_seed(0)
        adapted = load_method("lora")(model, LoraSettings(rank=4)).train()
        more = {} if count is None else {"num_items_in_batch": count}
        if chunked:
            with chunked_loss(adapted, batch()) as done:
                assert done
                loss = adapted(**batch(), **more).loss
                loss.backward()
        else:
            loss = adapted(**batch(), **more).loss
            loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad for name, p in adapted.named_parameters() if p.requires_grad})
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_tied_embeddings_are_trained_from_both_ends(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    gradients = []
    for chunked in (False, True):
        model = build_tiny_llama(tiny_tokenizer).train()
        assert model.config.tie_word_embeddings
        if chunked:
            with chunked_loss(model, batch()):
                model(**batch()).loss.backward()
        else:
            model(**batch()).loss.backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def test_the_logits_of_all_positions_are_never_there(
    tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_VALUES", 16 * VOCABULARY)
    largest = {}
    for chunked in (False, True):
        model = build_tiny_llama(tiny_tokenizer).train()
        example, rows = batch(2, 16), batch(4, 96)
        with chunked_loss(model, example) if chunked else nullcontext(), Largest() as seen:
            model(**rows).loss.backward()
        largest[chunked] = seen.values
    assert largest[False] >= 4 * 96 * VOCABULARY
    assert largest[True] < 4 * 96 * VOCABULARY / 2


def test_everything_is_as_before_after_the_block(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_llama(tiny_tokenizer).train()
    ids = batch()["input_ids"]
    expected = model(input_ids=ids).logits
    with chunked_loss(model, batch()):
        pass
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert model.training


# A factor may be applied before the head as well as after it; a cap may not.
CHANGED = {
    "gemma2": ("Gemma2Config", {"final_logit_softcapping": 5.0, "query_pre_attn_scalar": 16}, False),
    "granite": ("GraniteConfig", {"logits_scaling": 4.0}, True),
    "cohere": ("CohereConfig", {"logit_scale": 0.25}, True),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_model_that_changes_its_logits_has_the_same_loss(name: str) -> None:
    kind, more, chunked = CHANGED[name]
    config = getattr(transformers, kind)(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "initializer_range": 0.5,
            "pad_token_id": 0,
            **more,
        }
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        expected = model(**batch()).loss
        with chunked_loss(model, batch()) as done:
            assert done == chunked
            torch.testing.assert_close(model(**batch()).loss, expected, rtol=1e-5, atol=1e-5)


def tiny_mamba() -> PreTrainedModel:
    """In bf16; its logits are ``lm_head(hidden).float()``."""
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=1, pad_token_id=0
    )
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.bfloat16()


def test_a_model_that_widens_its_logits_has_the_same_loss() -> None:
    gradients = []
    for chunked in (False, True):
        model = tiny_mamba()
        with chunked_loss(model, batch()) if chunked else nullcontext(True) as done:
            assert done
            model(**batch()).loss.backward()
        gradients.append(model.backbone.layers[0].mixer.in_proj.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.1, atol=2e-4)


def test_a_model_that_cannot_compute_in_chunks_keeps_its_own_loss(
    tiny_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", module.__name__)

    def fail(*args: Any) -> None:
        raise RuntimeError("expected m1 and m2 to have the same dtype")

    monkeypatch.setattr(module, "chunked_cross_entropy", fail)
    model = build_tiny_llama(tiny_tokenizer)
    with chunked_loss(model, batch()) as done:
        assert not done
        model(**batch()).loss.backward()
    assert "the loss in chunks cannot be computed for this model" in caplog.text


def test_memory_that_runs_out_is_no_reason_to_take_more(
    tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(module, "chunked_cross_entropy", fail)
    model = build_tiny_llama(tiny_tokenizer)
    with pytest.raises(torch.OutOfMemoryError), chunked_loss(model, batch()):
        pass
