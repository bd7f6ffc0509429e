from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.base import base_manifest
from checkpoints.calibration import calibration_batches
from checkpoints.errors import CheckpointError, DataError
from checkpoints.fidelity import measure_fidelity
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.prompt import PromptEncoder
from checkpoints.tokens import token_ids
from tests.tiny_models import build_tiny_llama, build_tiny_tokenizer

BATCHES = [
    torch.randint(4, 320, (length,), generator=torch.Generator().manual_seed(7)) for length in (70, 9, 2)
]


@pytest.fixture(scope="module")
def model(tiny_llama_dir: Path) -> Any:
    return load_model(tiny_llama_dir)


def moved(model: Any, amount: float, seed: int = 1) -> Any:
    """A copy whose weights are moved by ``amount`` in a random direction."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    return other


def test_a_model_equals_itself(model: Any) -> None:
    fidelity = measure_fidelity(model, model, BATCHES)
    assert fidelity.mean_kl == fidelity.p99_kl == 0
    assert fidelity.top1_agreement == fidelity.perplexity_ratio == 1
    assert fidelity.tokens == 69 + 8 + 1
    assert fidelity.adapter_retention is None


def test_figures_match_the_definitions(model: Any) -> None:
    other = moved(model, 0.02)
    fidelity = measure_fidelity(model, other, BATCHES)
    kl, nll, agreed = [], 0.0, []
    for ids in BATCHES:
        with torch.inference_mode():
            p = torch.distributions.Categorical(logits=model(ids[None]).logits[0, :-1].double())
            q = torch.distributions.Categorical(logits=other(ids[None]).logits[0, :-1].double())
        kl.append(torch.distributions.kl_divergence(p, q))
        nll -= float(q.log_prob(ids[1:]).sum())
        agreed.append(p.logits.argmax(-1) == q.logits.argmax(-1))
    assert fidelity.mean_kl == pytest.approx(float(torch.cat(kl).mean()), rel=1e-3)
    assert fidelity.perplexity_candidate == pytest.approx(math.exp(nll / 78), rel=1e-5)
    assert fidelity.top1_agreement == pytest.approx(float(torch.cat(agreed).float().mean()))
    assert fidelity.p99_kl >= fidelity.mean_kl


def test_a_larger_perturbation_is_a_larger_divergence(model: Any) -> None:
    near, far = (measure_fidelity(model, moved(model, amount), BATCHES) for amount in (0.005, 0.05))
    assert 0 < near.mean_kl < far.mean_kl
    assert near.top1_agreement > far.top1_agreement


def test_retention_tells_a_kept_adapter_from_an_erased_one(model: Any) -> None:
    tuned = moved(model, 0.01)
    measure = lambda candidate: measure_fidelity(tuned, candidate, BATCHES, base_model=model)  # noqa: E731
    assert measure(tuned).adapter_retention == pytest.approx(1)
    assert measure(model).adapter_retention == 0
    half = copy.deepcopy(model)
    with torch.no_grad():
        for own, other in zip(half.parameters(), tuned.parameters(), strict=True):
            own.lerp_(other, 0.5)
    assert measure(half).adapter_retention == pytest.approx(0.5, abs=0.1)
    assert measure_fidelity(model, model, BATCHES, base_model=model).adapter_retention is None


def test_what_cannot_be_compared(model: Any) -> None:
    other = build_tiny_llama(build_tiny_tokenizer(vocabulary=300))
    with pytest.raises(CheckpointError, match="different vocabularies \\(320 and 300"):
        measure_fidelity(model, other, [torch.tensor([5, 6, 7])])
    with pytest.raises(CheckpointError, match="no token"):
        measure_fidelity(model, model, [torch.tensor([5])])
    broken = copy.deepcopy(model)
    broken.model.norm.weight.data[:] = float("nan")
    with pytest.raises(CheckpointError, match="NaN"):
        measure_fidelity(model, broken, BATCHES)


def test_packaged_calibration_set(tiny_llama_dir: Path, model: Any) -> None:
    tokenizer = load_tokenizer(tiny_llama_dir)
    encoder = PromptEncoder(tokenizer, base_manifest(tiny_llama_dir, model, tokenizer).tokens)
    batches = calibration_batches(None, encoder)
    assert len(batches) >= 20
    assert all(2 <= len(ids) <= 256 and ids.dtype == torch.int64 for ids in batches)
    text = "".join(tokenizer.decode(ids) for ids in batches)
    assert "春天" in text
    assert "<|im_start|>user" in text
    assert "def moving_average" in text
    assert all(len(ids) <= 10 for ids in calibration_batches(None, encoder, max_tokens_per_row=10))
    plain = build_tiny_tokenizer(chat_template=None)
    assert 0 < len(calibration_batches(None, PromptEncoder(plain, token_ids(plain)))) < len(batches)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a b c"', "not JSON"),
        ('{"question": "?"}', "expected text, messages, or prompt and completion; found question"),
        ('{"text": 5}', "text must be a string"),
        ('{"messages": [{"role": "robot", "content": "hi"}]}', r"messages\[0\].role is 'robot'"),
    ],
)
def test_a_bad_calibration_row_is_named(tmp_path: Path, tiny_tokenizer: Any, line: str, reason: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "What is", "completion": " this?"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"mine\.jsonl:2: .*{reason}"):
        calibration_batches(path, PromptEncoder(tiny_tokenizer, token_ids(tiny_tokenizer)))
