"""Packed experts on their own: format, products, gradients, and what they do not touch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GptOssConfig, Qwen3MoeConfig
from transformers.integrations.moe import use_experts_implementation
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from checkpoints.nf4_experts import NF4Experts, fused_projections, pack_experts
from checkpoints.nf4_packing import packed_bytes

EXPERTS = 4
TOKENS = 9
SIZES = [(64, 96), (72, 36), (33, 50)]
"""(hidden, inner): whole blocks; a last block that is shorter; an odd number of inputs."""


@use_experts_implementation(has_gate=False, has_bias=True)
class UngatedExperts(torch.nn.Module):
    """Experts without a gate, with biases."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.num_experts = EXPERTS
        self.up_proj = torch.nn.Parameter(
            torch.empty(EXPERTS, config.moe_intermediate_size, config.hidden_size)
        )
        self.up_proj_bias = torch.nn.Parameter(torch.empty(EXPERTS, config.moe_intermediate_size))
        self.down_proj = torch.nn.Parameter(
            torch.empty(EXPERTS, config.hidden_size, config.moe_intermediate_size)
        )
        self.down_proj_bias = torch.nn.Parameter(torch.empty(EXPERTS, config.hidden_size))
        self.act_fn = torch.nn.GELU()

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        output = torch.zeros_like(hidden_states)
        for token, state in enumerate(hidden_states):
            for expert, weight in zip(top_k_index[token].tolist(), top_k_weights[token], strict=True):
                between = self.act_fn(self.up_proj[expert] @ state + self.up_proj_bias[expert])
                output[token] += weight * (self.down_proj[expert] @ between + self.down_proj_bias[expert])
        return output


def qwen(hidden: int = 64, inner: int = 96) -> Any:
    config = Qwen3MoeConfig(hidden_size=hidden, moe_intermediate_size=inner, num_experts=EXPERTS)
    return filled(Qwen3MoeExperts, config)


def gpt_oss() -> Any:
    """Transposed weights, biases, a gate of its own."""
    return filled(
        GptOssExperts, GptOssConfig(hidden_size=64, intermediate_size=48, num_local_experts=EXPERTS)
    )


def ungated() -> Any:
    return filled(UngatedExperts, Qwen3MoeConfig(hidden_size=64, moe_intermediate_size=48))


def filled(kind: Any, config: Any) -> Any:
    config._experts_implementation = "eager"
    module = kind(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return module


def routed(hidden: int, experts: int = EXPERTS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(TOKENS, hidden, generator=generator)
    index = torch.stack([torch.randperm(experts, generator=generator)[:2] for _ in range(TOKENS)])
    return states, index, torch.rand(TOKENS, 2, generator=generator)


def packed(fused: torch.nn.Module, **options: Any) -> NF4Experts:
    return pack_experts(fused, **{"compute_dtype": torch.float32, **options}).eval()


def rows_of(experts: NF4Experts, name: str) -> dict[str, torch.Tensor]:
    parameters = dict(experts.named_parameters())
    return {
        part.removeprefix(f"{name}_"): value for part, value in parameters.items() if part.startswith(name)
    }


class ReadMatrices(TorchDispatchMode):
    """Notes where the packed weights lie that products read."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "4bit" in str(func):
            self.addresses.append(next(value for value in args if value.dtype == torch.uint8).data_ptr())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("hidden", "inner"), SIZES)
def test_each_expert_is_what_bitsandbytes_makes_of_its_matrix(hidden: int, inner: int, double: bool) -> None:
    fused = qwen(hidden, inner)
    dense = copy.deepcopy(fused)
    experts = packed(fused, double_quantization=double)
    total = 0
    for name in ("gate_up_proj", "down_proj"):
        rows = rows_of(experts, name)
        values = experts.dequantized(name, torch.float32)
        for index, matrix in enumerate(getattr(dense, name).data):
            data, state = quantize_4bit(
                matrix.contiguous(), blocksize=64, compress_statistics=double, quant_type="nf4"
            )
            assert torch.equal(rows["packed"][index], data.view(-1))
            assert torch.equal(rows["absmax"][index], state.absmax)
            if double:
                assert torch.equal(rows["nested_absmax"][index], state.state2.absmax)
                assert torch.equal(rows["nested_offset"][index], state.offset)
                assert torch.equal(rows["nested_quant_map"], state.state2.code)
            assert torch.equal(values[index], dequantize_4bit(data, state))
        rows.pop("nested_quant_map", None)
        stored = sum(value.nbytes for value in rows.values())
        assert stored == packed_bytes(EXPERTS, matrix.numel(), double_quantization=double)
        total += stored
    assert total / sum(value.numel() for value in dense.parameters()) < (0.54 if double else 0.58)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("hidden", "inner"), SIZES)
def test_output_and_gradients_are_those_of_dequantized_weights(hidden: int, inner: int, double: bool) -> None:
    experts = packed(qwen(hidden, inner), double_quantization=double)
    dense = copy.deepcopy(experts).unpack(torch.float32)
    states, index, weights = routed(hidden)
    results = []
    for module in (experts, dense):
        inputs = [value.clone().requires_grad_() for value in (states, weights)]
        output = module(inputs[0], index, inputs[1])
        output.square().sum().backward()
        results.append([output.detach(), *(value.grad for value in inputs)])
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in experts.parameters())


@pytest.mark.parametrize("build", [gpt_oss, ungated])
def test_other_layouts_gates_and_biases(build: Callable[[], Any]) -> None:
    fused = build()
    original = copy.deepcopy(fused)
    experts = packed(fused)
    dense = copy.deepcopy(experts).unpack(torch.float32)
    routing = routed(64)
    with torch.no_grad():
        found, expected = experts(*routing), dense(*routing)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert 0 < (found - original(*routing)).norm() / original(*routing).norm() < 0.3
    assert type(dense) is type(original)
    assert {name: value.shape for name, value in dense.named_parameters()} == {
        name: value.shape for name, value in original.named_parameters()
    }


def test_only_the_experts_hit_are_read() -> None:
    experts = packed(qwen())
    states, index, weights = routed(64)
    index = 1 + 2 * (index // 2)  # 1 and 3
    with torch.no_grad(), ReadMatrices() as read:
        experts(states, index, weights)
    expected = [
        getattr(experts, f"{name}_packed")[expert].data_ptr()
        for expert in (1, 3)
        for name in ("gate_up_proj", "down_proj")
    ]
    assert read.addresses == expected


def test_the_backward_pass_keeps_no_dequantized_weights() -> None:
    experts = packed(qwen())
    states, index, weights = routed(64)
    kept: list[tuple[int, ...]] = []

    def note(value: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(value.shape))
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        output = experts(states.requires_grad_(), index, weights)
    output.sum().backward()
    assert states.grad is not None
    assert kept
    assert not {(192, 64), (64, 192), (64, 96), (96, 64)} & set(kept)


def test_the_compute_dtype_is_its_own() -> None:
    experts = packed(qwen())
    routing = routed(64)
    with torch.no_grad():
        exact = experts(*routing)
        experts.compute_dtype = torch.bfloat16
        rounded = experts(*routing)
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < (exact - rounded).norm() / exact.norm() < 0.02


def test_tokens_that_no_expert_takes() -> None:
    experts = packed(qwen())
    states, index, weights = routed(64)
    index[3, 0] = EXPERTS  # how transformers marks a token that this rank's experts do not take
    with torch.no_grad():
        found = experts(states, index, weights)
        index[3, 0], weights[3, 0] = 0, 0.0
        torch.testing.assert_close(found, experts(states, index, weights))
        assert experts(states[:0], index[:0], weights[:0]).shape == (0, 64)


def test_a_changed_byte_changes_its_expert_alone() -> None:
    experts = packed(qwen())
    states, index, weights = routed(64)
    with torch.no_grad():
        before = experts(states, index, weights)
        experts.down_proj_packed[2, 5] ^= 0x70
        after = experts(states, index, weights)
    changed = (before != after).any(dim=1)
    assert torch.equal(changed, (index == 2).any(dim=1))
    assert changed.any()
    assert not changed.all()


def test_what_is_not_known_is_not_taken_for_experts() -> None:
    fused = qwen()
    assert fused_projections(fused) is not None
    extra = copy.deepcopy(fused)
    extra.scale = torch.nn.Parameter(torch.ones(EXPERTS))
    assert fused_projections(extra) is None
    normed = copy.deepcopy(fused)
    normed.has_post_expert_norm = True
    assert fused_projections(normed) is None
    other_sizes = copy.deepcopy(fused)
    other_sizes.down_proj = torch.nn.Parameter(torch.empty(EXPERTS, 64, 95))
    assert fused_projections(other_sizes) is None
    assert fused_projections(torch.nn.Linear(64, 64)) is None
    with pytest.raises(TypeError, match="does not hold fused experts"):
        pack_experts(normed, compute_dtype=torch.float32)


def test_experts_are_known_by_structure_where_nothing_decorates_them() -> None:
    """A native model may write its experts plainly."""

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj = torch.nn.Parameter(torch.randn(EXPERTS, 96, 64) / 8)
            self.down_proj = torch.nn.Parameter(torch.randn(EXPERTS, 64, 48) / 7)
            self.act_fn = torch.nn.SiLU()

        def forward(
            self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
        ) -> torch.Tensor:
            raise NotImplementedError

    plain = Plain()
    experts = packed(plain)
    states, index, share = routed(64)
    expected = torch.zeros_like(states)
    weights = [experts.dequantized(name, torch.float32) for name in ("gate_up_proj", "down_proj")]
    for token in range(TOKENS):
        for expert, weight in zip(index[token].tolist(), share[token], strict=True):
            gate, up = (weights[0][expert] @ states[token]).chunk(2)
            expected[token] += weight * (weights[1][expert] @ (torch.nn.functional.silu(gate) * up))
    with torch.no_grad():
        torch.testing.assert_close(experts(states, index, share), expected, rtol=1e-4, atol=1e-5)
