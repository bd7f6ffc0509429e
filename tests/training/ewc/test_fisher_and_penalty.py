"""The parts: what is estimated, and what is added to the gradients, held against autograd by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from checkpoints.errors import ConfigError
from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.encoding import RowEncoder, encode_rows
from training.data.formats import read_rows
from training.ewc.config import EwcSettings
from training.ewc.fisher import choose_rows
from training.ewc.penalty import Penalty
from training.ewc.store import Importance, read_importance
from training.run import train

ROWS, SAMPLES = 8, 3


def test_the_fisher_is_the_sum_of_squared_gradients_of_rows_over_their_tokens(
    tiny_llama_dir: Path, tmp_path: Path
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(ROWS))
    settings = EwcSettings(save=True, samples=SAMPLES)
    adapter = train(tiny_config(tiny_llama_dir, data, tmp_path / "run", ewc=settings, max_steps=4))
    saved = read_importance(tmp_path / "run")
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in saved.values} == weights.keys()
    for name, value in saved.values.items():
        assert torch.equal(value, weights[name.replace(".default", "")])

    model = load_model(adapter, dtype="fp32", device="cpu")
    trained = {name: value.requires_grad_() for name, value in model.named_parameters() if "lora_" in name}
    encoder = PromptEncoder.from_checkpoint(adapter)
    rows = list(
        encode_rows(RowEncoder(encoder, encoder.tokens), read_rows(data), max_length=128, what="training")
    )
    squares = {name: torch.zeros_like(value) for name, value in trained.items()}
    of_all = {name: torch.zeros_like(value) for name, value in trained.items()}
    tokens = 0
    for index in choose_rows(ROWS, SAMPLES, seed=0):
        labels = torch.tensor(rows[index].labels)[1:]
        logits = model(input_ids=torch.tensor([rows[index].input_ids])).logits[0, :-1]
        loss = functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        gradients = torch.autograd.grad(loss, list(trained.values()))
        for name, gradient in zip(trained, gradients, strict=True):
            squares[name] += gradient**2
            of_all[name] += gradient
        tokens += int((labels != -100).sum())

    assert saved.fisher.keys() == trained.keys()
    for name, fisher in saved.fisher.items():
        expected = squares[name] / tokens
        torch.testing.assert_close(fisher, expected, rtol=1e-3, atol=1e-6 * float(expected.max()))
    # The square of the batch's gradient, which is not it, is seen to be another.
    name = max(squares, key=lambda one: float(squares[one].max()))
    assert not torch.allclose(saved.fisher[name], of_all[name] ** 2 / tokens, rtol=0.1)


def test_the_rows_are_chosen_by_the_seed() -> None:
    assert choose_rows(100, 5, seed=1) == choose_rows(100, 5, seed=1) != choose_rows(100, 5, seed=2)
    assert choose_rows(4, 9, seed=1) == [0, 1, 2, 3]


def importance_of(model: nn.Module) -> Importance:
    names = dict(model.named_parameters())
    return Importance(
        {name: torch.rand_like(value) for name, value in names.items()},
        {name: torch.randn_like(value) for name, value in names.items()},
    )


def test_the_penaltys_gradient_is_autograds() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    trained, weight = dict(model.named_parameters()), 0.7
    importance = importance_of(model)
    model(torch.randn(2, 5)).square().sum().backward()
    before = {name: value.grad.clone() for name, value in trained.items() if value.grad is not None}

    formula = sum(
        (importance.fisher[name] * (value - importance.values[name]) ** 2).sum()
        for name, value in trained.items()
    )
    assert isinstance(formula, torch.Tensor)
    expected = torch.autograd.grad(weight / 2 * formula, list(trained.values()))
    penalty = Penalty(trained, importance, weight)
    penalty.add_gradients()
    for (name, value), gradient in zip(trained.items(), expected, strict=True):
        assert value.grad is not None
        torch.testing.assert_close(value.grad - before[name], gradient)
    torch.testing.assert_close(penalty._values[0], (weight / 2 * formula).detach())


def test_other_weights_are_named() -> None:
    importance = importance_of(nn.Linear(5, 3))
    with pytest.raises(ConfigError, match=r"of another shape: weight \(3, 5\), here \(4, 5\)"):
        Penalty(dict(nn.Linear(5, 4).named_parameters()), importance, 1.0)
    with pytest.raises(ConfigError, match=r"only there: bias\."):
        Penalty(dict(nn.Linear(5, 3, bias=False).named_parameters()), importance, 1.0)
