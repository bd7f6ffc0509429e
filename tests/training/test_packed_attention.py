"""Packed rows that attend one after the other: what a mask gives, in values and gradients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.tiny_mixtures import build_tiny_mixture
from tests.tiny_models import build_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.encoding import Encoded
from training.data.packing import Pack, PackingCollator
from training.fused import packed_attention as ours
from training.fused.packed_attention import NAME, packed_attention, row_lengths, row_wise_attention
from training.metrics import read_metrics
from training.run import train


class Layer(torch.nn.Module):
    """What attention functions look at in a layer."""

    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def positions(*packs: list[int]) -> torch.Tensor:
    return torch.stack([torch.cat([torch.arange(length) for length in pack]) for pack in packs])


def causal_mask(position_ids: torch.Tensor) -> torch.Tensor:
    """Return what each token may see, bool ``[batch, 1, length, length]``."""
    row = (position_ids == 0).cumsum(dim=1)
    same = row[:, :, None] == row[:, None, :]
    return torch.tril(same).unsqueeze(1)


PACKS = positions([5, 1, 7, 3], [16], [8, 8])


def states(dtype: torch.dtype = torch.float32, value_size: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(3, 6, 16, 8), (3, 2, 16, 8), (3, 2, 16, value_size)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("value_size", [8, 12])
def test_values_and_gradients_are_those_behind_a_mask(value_size: int) -> None:
    found = []
    for attend in (sdpa_attention_forward, packed_attention):
        tensors = states(value_size=value_size)
        output, shares = attend(
            Layer(3), *tensors, causal_mask(PACKS), scaling=0.3, position_ids=PACKS, is_causal=True
        )
        assert shares is None
        assert output.shape == (3, 16, 6, value_size)
        towards = torch.linspace(-1, 1, output.numel()).view_as(output)
        found.append((output, *torch.autograd.grad((output * towards).sum(), tensors)))
    for behind_mask, by_row in zip(*found, strict=True):
        torch.testing.assert_close(by_row, behind_mask, atol=1e-5, rtol=1e-5)


def test_rows_that_share_a_sequence_are_told_by_their_positions() -> None:
    query, key, _ = states()
    assert row_lengths(PACKS, query, key) == [5, 1, 7, 3, 16, 8, 8]


@pytest.mark.parametrize(
    "position_ids",
    [
        None,
        positions([16], [16], [16]),  # nothing is packed
        positions([5, 11], [16], [16]) + 1,  # a row goes on that began before
        torch.cat([PACKS[:, :9], PACKS[:, 9:] + 3], dim=1),  # a gap
        PACKS[:1],  # of one sequence, for all
        positions([5, 12], [17], [17]),  # of another length
    ],
    ids=["none", "one row each", "goes on", "a gap", "shared", "another length"],
)
def test_other_batches_are_left_to_the_mask(position_ids: torch.Tensor | None) -> None:
    query, key, _ = states()
    assert row_lengths(position_ids, query, key) is None


@pytest.mark.parametrize(
    "special",
    [
        {"sliding_window": 7},
        {"position_bias": torch.linspace(0, 1, 16)},
        {"is_causal": False},
    ],
    ids=["a window", "a bias", "not causal"],
)
def test_what_it_does_not_compute_is_left_to_the_mask(special: dict[str, Any]) -> None:
    query, key, value = states()
    mask = causal_mask(PACKS)
    expected, _ = sdpa_attention_forward(Layer(3), query, key, value, mask, scaling=0.3, **special)
    found, _ = packed_attention(Layer(3), query, key, value, mask, scaling=0.3, position_ids=PACKS, **special)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_a_window_that_no_row_outgrows_is_none() -> None:
    query, key, value = states()
    mask = causal_mask(PACKS)
    expected, _ = sdpa_attention_forward(Layer(3), query, key, value, mask, scaling=0.3)
    # No mask that is looked at: this one would hide everything.
    found, _ = packed_attention(
        Layer(3), query, key, value, mask & False, scaling=0.3, position_ids=PACKS, sliding_window=16
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def batch_of(*lengths: int) -> dict[str, torch.Tensor]:
    rows = [Encoded(list(range(5, 5 + length)), list(range(5, 5 + length))) for length in lengths]
    return PackingCollator(0)([Pack(rows)])


@pytest.mark.parametrize("build", [build_tiny_llama, None], ids=["llama", "qwen3_moe"])
def test_a_model_has_the_same_gradients(
    tiny_tokenizer: PreTrainedTokenizerFast, build: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(9, 17, 5, 12)
    gradients = []
    calls: list[list[int]] = []

    def count(*arguments: Any) -> list[int] | None:
        lengths = row_lengths(*arguments)
        calls.append(lengths or [])
        return lengths

    monkeypatch.setattr(ours, "row_lengths", count)
    for by_row in (False, True):
        model = build_tiny_mixture("qwen3_moe") if build is None else build(tiny_tokenizer)
        assert model.config._attn_implementation == "sdpa"
        if by_row:
            with row_wise_attention(model, batch) as taken:
                assert taken
                assert model.config._attn_implementation == NAME
                calls.clear()
                model(**batch, use_cache=False).loss.backward()
                assert calls == [[9, 17, 5, 12]] * model.config.num_hidden_layers
        else:
            model(**batch, use_cache=False).loss.backward()
        assert model.config._attn_implementation == "sdpa"
        gradients.append({name: value.grad for name, value in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_a_model_that_would_compute_something_else_keeps_its_own(
    tiny_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Rows that are cut in another place see each other.
    model = build_tiny_llama(tiny_tokenizer, initializer_range=0.5)
    monkeypatch.setattr(ours, "row_lengths", lambda position_ids, *_: [position_ids.numel() - 3, 3])
    with caplog.at_level(logging.INFO), row_wise_attention(model, batch_of(9, 8)) as taken:
        assert not taken
        assert model.config._attn_implementation == "sdpa"
    assert "one by one they would give something else" in caplog.text


def test_another_attention_stays(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_llama(tiny_tokenizer)
    model.set_attn_implementation("eager")
    with row_wise_attention(model, batch_of(9, 8)) as taken:
        assert not taken
    assert model.config._attn_implementation == "eager"


def test_a_packed_run_takes_it_and_learns_the_same(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(12))
    packed: list[int] = []

    def count(*arguments: Any) -> list[int] | None:
        lengths = row_lengths(*arguments)
        packed.append(len(lengths or []))
        return lengths

    monkeypatch.setattr(ours, "row_lengths", count)
    losses = []
    for fused in (True, False):
        packed.clear()
        output = tmp_path / f"run-{fused}"
        rows = {"packing": True, "max_length": 256}
        train(tiny_config(tiny_llama_dir, data, output, rows=rows, max_steps=4, batch_size=12, fused=fused))
        losses.append([row["loss"] for row in read_metrics(output / "metrics.jsonl")])
        assert any(packed) is fused
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
