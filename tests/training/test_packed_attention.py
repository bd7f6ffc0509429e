"""Packed rows that attend one after the other: what a mask gives, in values and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerFast, Qwen2MoeConfig, Qwen2MoeForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.tiny_mixtures import build_tiny_mixture
from tests.tiny_models import build_tiny_llama
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.data.encoding import Encoded
from training.data.packing import Pack, PackingCollator
from training.fused import packed_attention as ours
from training.fused.packed_attention import PackedAttention, row_lengths, row_wise_attention
from training.metrics import read_metrics
from training.run import train


class Layer(torch.nn.Module):
    """What attention functions look at in a layer."""

    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def mask_of(*packs: list[int]) -> torch.Tensor:
    """Return what each token of packed rows may see, bool ``[batch, 1, length, length]``."""
    masks = [torch.block_diag(*(torch.ones(length, length).tril() for length in pack)) for pack in packs]
    return torch.stack(masks).bool().unsqueeze(1)


PACKS = ([5, 1, 7, 3], [16], [8, 8])
LENGTHS = [5, 1, 7, 3, 16, 8, 8]


def states(value_size: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(3, 6, 16, 8), (3, 2, 16, 8), (3, 2, 16, value_size)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the rows of each layer that attends row by row."""
    calls: list[list[int]] = []
    attend = ours._attend

    def note(query: Any, key: Any, value: Any, lengths: list[int], *rest: Any) -> torch.Tensor:
        calls.append(lengths)
        return attend(query, key, value, lengths, *rest)

    monkeypatch.setattr(ours, "_attend", note)
    return calls


@pytest.mark.parametrize("value_size", [8, 12])
def test_values_and_gradients_are_those_behind_a_mask(value_size: int, taken: list[list[int]]) -> None:
    found = []
    for attend in (sdpa_attention_forward, PackedAttention()):
        tensors = states(value_size)
        output, shares = attend(Layer(3), *tensors, mask_of(*PACKS), scaling=0.3)
        assert shares is None
        assert output.shape == (3, 16, 6, value_size)
        towards = torch.linspace(-1, 1, output.numel()).view_as(output)
        found.append((output, *torch.autograd.grad((output * towards).sum(), tensors)))
    assert taken == [LENGTHS]
    for behind_mask, by_row in zip(*found, strict=True):
        torch.testing.assert_close(by_row, behind_mask, atol=1e-5, rtol=1e-5)


def test_rows_are_told_by_the_mask() -> None:
    assert row_lengths(mask_of(*PACKS)) == LENGTHS


WINDOW = mask_of(*PACKS) & ~torch.ones(16, 16).tril(-6).bool()
PREFIX = mask_of(*PACKS)
PREFIX[0, 0, :5, :5] = True  # the first row sees itself whole
GAP = mask_of(*PACKS)
GAP[1, 0, 9, 2] = False
PADDED = mask_of(*PACKS)
PADDED[2, 0, :, 14:] = False


@pytest.mark.parametrize(
    "mask",
    [
        mask_of([16], [16], [16]),
        WINDOW,
        PREFIX,
        GAP,
        PADDED,
        torch.zeros(3, 1, 16, 16).masked_fill(~mask_of(*PACKS), -1e9),
        mask_of(*PACKS)[:, :, :, :8],
        mask_of(*PACKS).expand(3, 6, 16, 16),
    ],
    ids=["no packs", "a window", "a prefix", "a gap", "padding", "numbers", "fewer keys", "a mask a head"],
)
def test_any_other_mask_is_left_to_pytorch(mask: torch.Tensor) -> None:
    assert row_lengths(mask) is None


@pytest.mark.parametrize("name", ["softcap", "position_bias", "s_aux", "cache"])
def test_what_it_does_not_compute_is_left_to_transformers(
    name: str, taken: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def attend(*_: Any, **more: Any) -> tuple[torch.Tensor, None]:
        asked.append(more[name])
        return torch.zeros(1), None

    monkeypatch.setattr(ours, "sdpa_attention_forward", attend)
    PackedAttention()(Layer(3), *states(), mask_of(*PACKS), **{name: 1.0})
    assert asked == [1.0]
    assert not taken


def test_a_mask_is_looked_at_once_and_another_one_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def count(mask: torch.Tensor) -> list[int] | None:
        looked.append(len(mask))
        return row_lengths(mask)

    monkeypatch.setattr(ours, "row_lengths", count)
    attend = PackedAttention()
    for packs in (PACKS, ([16], [4, 12], [16])):
        mask = mask_of(*packs)
        expected, _ = sdpa_attention_forward(Layer(3), *states(), mask)
        for _ in range(2):
            found, _ = attend(Layer(3), *states(), mask)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert looked == [3, 3]


def batch_of(*lengths: int) -> dict[str, torch.Tensor]:
    rows = [Encoded(list(range(5, 5 + length)), list(range(5, 5 + length))) for length in lengths]
    return PackingCollator(0)([Pack(rows)])


def model_of(kind: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    if kind in ("qwen3_moe", "deepseek_v3"):
        return build_tiny_mixture(kind)
    model: Any = build_tiny_llama(tokenizer)
    if kind == "lora, recomputed":
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    return model


@pytest.mark.parametrize("kind", ["llama", "lora, recomputed", "qwen3_moe", "deepseek_v3"])
def test_a_model_has_the_same_gradients(
    kind: str, tiny_tokenizer: PreTrainedTokenizerFast, taken: list[list[int]]
) -> None:
    batch = batch_of(9, 17, 5, 12)
    gradients = []
    for by_row in (False, True):
        torch.manual_seed(0)
        model = model_of(kind, tiny_tokenizer)
        assert model.config._attn_implementation == "sdpa"
        if by_row:
            with row_wise_attention():
                model(**batch, use_cache=False).loss.backward()
        else:
            model(**batch, use_cache=False).loss.backward()
        layers = model.config.num_hidden_layers * (2 if kind == "lora, recomputed" else 1)
        assert taken == [[9, 17, 5, 12]] * (layers if by_row else 0)
        gradients.append(
            {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


def test_a_window_that_only_the_mask_knows_is_kept(taken: list[list[int]]) -> None:
    """Qwen2-MoE's layers hand no window to their attention; here the first of two has one."""
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_experts=2,
        shared_expert_intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        use_sliding_window=True, sliding_window=6, max_window_layers=1, initializer_range=0.5,
        num_experts_per_tok=1,
    )  # fmt: skip
    model = Qwen2MoeForCausalLM(config).eval()
    long, short = batch_of(20, 9), batch_of(5, 4)
    with torch.no_grad():
        expected = model(**long, use_cache=False).logits
        with row_wise_attention():
            found = model(**long, use_cache=False).logits
            assert taken == [[20, 9]]
            model(**short, use_cache=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert taken == [[20, 9], [5, 4], [5, 4]]


def test_it_ends_with_the_block_whatever_happens() -> None:
    with pytest.raises(KeyError), row_wise_attention():
        assert isinstance(ALL_ATTENTION_FUNCTIONS["sdpa"], PackedAttention)
        raise KeyError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward


def test_a_packed_run_takes_it_and_learns_the_same(
    tiny_llama_dir: Path, tmp_path: Path, taken: list[list[int]]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(12))
    losses = []
    for fused in (True, False):
        taken.clear()
        output = tmp_path / f"run-{fused}"
        rows = {"packing": True, "max_length": 256, "eval_fraction": 0.25}
        train(tiny_config(tiny_llama_dir, data, output, rows=rows, max_steps=4, batch_size=12, fused=fused))
        metrics = read_metrics(output / "metrics.jsonl")
        losses.append([row["loss"] for row in metrics] + [metrics[-1]["eval_loss"]])
        assert bool(taken) is fused
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
