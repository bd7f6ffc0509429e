"""Fast paths: taken where they give the model's own numbers, and refused where they do not."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.runner import Chunk, compute_in_turn
from serving.engine.torch import attention, decoder_layer, products
from serving.engine.torch.compiled.linear.layer import CompiledLinear
from serving.engine.torch.decoder_layer import FusedDecoderLayer, fuse_decoder_layers
from serving.engine.torch.joined_linear import JoinedLinear, join_linear_layers
from serving.engine.torch.masks import MaskBuilder
from serving.engine.torch.norms import RMSNorm, fuse_norms
from serving.engine.torch.plan import Plan
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.products import pack_linear_layers
from serving.engine.torch.runner import TorchRunner
from tests.equality import assert_equal_tokens
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import make_engine, prompts, references, tiny_model


@pytest.mark.parametrize("rows", [1, 2, 7, 32, 100])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_packed_layer_computes_the_same(rows: int, bias: bool) -> None:
    model = nn.Sequential(nn.Linear(96, 160, bias=bias), nn.ReLU(), nn.Linear(160, 33, bias=bias))
    inputs = torch.randn(rows, 1, 96)
    expected = model(inputs)
    assert pack_linear_layers(model, rows=32) == 2
    torch.testing.assert_close(model(inputs), expected, atol=1e-5, rtol=1e-5)


class Siblings(nn.Module):
    """Two layers that read one input, and a third that reads another."""

    def __init__(self, bias: bool, sizes: tuple[int, int] = (96, 96)) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes[0], 160, bias=bias)
        self.up_proj = nn.Linear(sizes[1], 33, bias=bias)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.gate_proj(first), self.up_proj(second)


@pytest.mark.parametrize("rows", [1, 7, 32])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_joined_layers_compute_the_same(rows: int, bias: bool) -> None:
    model = Siblings(bias)
    one, other = torch.randn(rows, 1, 96), torch.randn(rows, 1, 96)
    # Also where the inputs differ after all, and when a layer is called alone or twice.
    calls = [(one, one), (one, other), (other, one), (one, one)]
    expected = [model(*call) for call in calls]
    again = model.up_proj(one)
    assert join_linear_layers(model, rows=32) == 1
    assert type(model.gate_proj) is type(model.up_proj) is JoinedLinear
    for call, outputs in zip(calls, expected, strict=True):
        torch.testing.assert_close(model(*call), outputs, atol=1e-5, rtol=1e-5)
    for _ in range(2):
        torch.testing.assert_close(model.up_proj(one), again, atol=1e-5, rtol=1e-5)


def test_only_layers_that_can_share_a_product_are_joined() -> None:
    assert join_linear_layers(Siblings(True, sizes=(96, 64)), rows=8) == 0
    lone = nn.ModuleDict({"gate_proj": nn.Linear(8, 8), "q_proj": nn.Linear(8, 8)})
    assert join_linear_layers(lone, rows=8) == 0


def test_layers_that_are_not_plain_stay() -> None:
    class Special(nn.Linear):
        pass

    model = nn.ModuleDict({"special": Special(8, 8), "narrow": nn.Linear(8, 8, dtype=torch.float16)})
    assert pack_linear_layers(model, rows=8) == 0


@torch.inference_mode()
def test_a_norm_is_fused_only_where_it_is_the_same() -> None:
    class OtherRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) * 1.01

    model = nn.ModuleDict({"plain": LlamaRMSNorm(32, eps=1e-5), "other": OtherRMSNorm(32, eps=1e-5)})
    model["plain"].weight.uniform_(0.5, 2)
    model["small"] = OtherRMSNorm(32, eps=1e-5)
    model["small"].weight.fill_(0.001)
    few, many = torch.randn(3, 5, 32), torch.randn(20, 5, 32)
    expected = [model["plain"](inputs) for inputs in (few, many)]
    assert fuse_norms(model) == 1
    for inputs, output in zip((few, many), expected, strict=True):
        torch.testing.assert_close(model["plain"](inputs), output, atol=1e-6, rtol=1e-6)
    assert isinstance(model["other"], OtherRMSNorm)
    assert isinstance(model["small"], OtherRMSNorm)
    # A sum with one, as Gemma's, is no number of bf16.
    gemma = nn.ModuleDict({"norm": GemmaRMSNorm(32).to(torch.bfloat16)})
    assert fuse_norms(gemma) == 0
    assert fuse_norms(gemma.float()) == 1


def test_a_model_is_prepared_whole() -> None:
    for name, expected in (
        ("llama", {FusedDecoderLayer, CompiledLinear, RMSNorm}),
        ("gemma3_text", {CompiledLinear, JoinedLinear, RMSNorm}),
    ):
        model = tiny_model(name)
        prepare_model(model)
        kinds = {type(module) for module in model.modules()}
        assert nn.Linear not in kinds
        assert expected <= kinds


def test_a_layer_goes_before_the_next_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    layers = [weakref.ref(layer) for layer in model.model.layers]
    alive = []

    class Watched(FusedDecoderLayer):
        def __init__(self, layer: nn.Module, rows: int) -> None:
            gc.collect()
            alive.append(sum(found() is not None for found in layers))
            super().__init__(layer, rows)

    monkeypatch.setattr(decoder_layer, "FusedDecoderLayer", Watched)
    fuse_decoder_layers(model, rows=8)
    assert alive == [2, 1]


def test_decoder_layers_that_may_compute_something_else_stay() -> None:
    class Doubled(LlamaDecoderLayer):
        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return 2 * super().forward(*args, **kwargs)

    plain, other, gelu, quantized, biased, precise = (tiny_model() for _ in range(6))
    assert fuse_decoder_layers(plain, rows=8) == 2
    other.model.layers[0] = Doubled(other.config, 0)
    gelu.model.layers[1].mlp.act_fn = nn.GELU()
    quantized.model.layers[0].self_attn.q_proj = type("Linear4bit", (nn.Linear,), {})(64, 64, bias=False)
    biased.model.layers[0].self_attn.v_proj = nn.Linear(64, 32)
    precise.bfloat16().model.layers[0].mlp.up_proj.float()
    precise.model.layers[1].input_layernorm.float()
    assert fuse_decoder_layers(precise, rows=8) == 0
    for model in (other, gelu, quantized, biased):
        assert fuse_decoder_layers(model, rows=8) == 1


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3_text"])
@torch.inference_mode()
def test_without_kernels_the_numbers_are_the_same(name: str) -> None:
    def logits() -> torch.Tensor:
        runner = TorchRunner(model, 2, 128)
        first = runner.prefill(0, ids[:-8], 0)
        rest = [runner.decode([token], [at]) for at, token in enumerate(ids[-8:], len(ids) - 8)]
        return torch.cat([first, *rest])

    (ids,) = prompts(1, longest=100)
    ids = ids * (1 + 64 // len(ids))
    model = tiny_model(name)
    expected = logits()
    prepare_model(model)
    assert {"PackedLinear"} <= {type(module).__name__ for module in model.modules()}
    torch.testing.assert_close(logits(), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_in_bf16_the_fast_paths_are_as_close_to_fp32_as_the_model_itself() -> None:
    def logits(model: PreTrainedModel) -> torch.Tensor:
        runner = TorchRunner(model, 2, 128)
        first = runner.prefill(0, ids[:-8], 0)
        rest = [runner.decode([token], [at]) for at, token in enumerate(ids[-8:], len(ids) - 8)]
        return torch.cat([first, *rest]).log_softmax(-1)

    (ids,) = prompts(1, longest=100)
    ids = ids * (1 + 64 // len(ids))
    exact, plain, fast = (tiny_model().to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.bfloat16))
    prepare_model(fast)
    expected = logits(exact)
    kl = [
        nn.functional.kl_div(logits(model), expected, log_target=True, reduction="batchmean").item()
        for model in (plain, fast)
    ]
    assert kl[1] <= 1.5 * kl[0] + 1e-5
    assert kl[0] < 1e-2


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that the kernels are not for."""
    monkeypatch.setattr(products, "compiled_in", lambda layer: None)
    monkeypatch.setattr(decoder_layer, "kernel", lambda *_: None)
    monkeypatch.setattr(attention, "kernel_for_rows", lambda *_: None)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral with a window"])
@torch.inference_mode()
def test_one_pass_over_rows_and_chunks_gives_what_passes_in_turn_give(
    name: str, compiled: bool, request: pytest.FixtureRequest
) -> None:
    if not compiled:
        request.getfixturevalue("no_kernels")
    model = tiny_model(name)
    prepare_model(model)
    mixed, in_turn = (TorchRunner(model, 12, 128) for _ in range(2))
    assert mixed.mixes
    ids = [item * (1 + 30 // len(item)) for item in prompts(12, longest=60)]
    for runner in (mixed, in_turn):
        for row in range(10):
            runner.prefill(row, ids[row], 0)
        runner.prefill(9, ids[9], 0)
        runner.prefill(10, ids[10][:7], 0)
    positions = [len(item) for item in ids[:9]]
    chunks = [Chunk(9, [4] * 5, len(ids[9])), Chunk(10, ids[10][7:], 7), Chunk(11, ids[11], 0)]
    found = mixed.compute(list(range(3, 12)), positions, chunks)
    expected = compute_in_turn(in_turn, list(range(3, 12)), positions, chunks)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(mixed.cache.layers, in_turn.cache.layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=1e-5)
    prompts_alone = mixed.compute([], [], chunks[1:])
    torch.testing.assert_close(prompts_alone, expected[-2:], atol=1e-4, rtol=1e-4)


def test_passes_are_mixed_only_where_all_layers_attend_part_by_part() -> None:
    for name, mixes in (("llama", True), ("qwen2 with mixed windows", False), ("gemma3_text", False)):
        model = tiny_model(name)
        assert not TorchRunner(model, 2, 128).mixes
        prepare_model(model)
        assert TorchRunner(model, 2, 128).mixes is mixes


def test_rows_attend_in_runs_only_where_that_saves() -> None:
    def runs(lengths: list[int]) -> tuple[tuple[int, int, int], ...]:
        return Plan.decode(torch.zeros((len(lengths), 1), dtype=torch.int64), lengths).segments

    assert runs([40] * 20) == ()
    assert runs([10, 200]) == ()
    assert runs([10] * 8 + [200] * 3 + [30]) == ((0, 8, 10), (8, 12, 200))


def test_a_window_that_is_ignored_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The negative of the equality tests of windowed models: without its window, one must fail.
    model = tiny_model("mistral with a window")
    ids = prompts(6)
    expected = references(model, ids, 24)
    monkeypatch.setattr(MaskBuilder, "_mask", lambda self, at, length, window: causal(self, at, length, None))
    requests = [GenerationRequest(item, SamplingParameters(max_tokens=24)) for item in ids]
    found = [token_ids(events) for events in drive(make_engine(model), requests)]
    with pytest.raises(AssertionError):
        assert_equal_tokens(expected, found)


causal = MaskBuilder._mask
