"""Compiled linear layers with weights in NF4 and int8, against the definition in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn

from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.layout import GROUP
from serving.engine.torch.compiled.linear.layer import CompiledLinear, compiled_in
from serving.engine.torch.int8 import Int8Linear

pytestmark = pytest.mark.usefixtures("without_gradients")

SIZES = [(576, 960), (64, 100), (192, 33), (256, 7)]
"""Input and output features: whole panels, a part of one, and less than one."""

ROWS = [1, 3, 4, 5, 31, 129, 300]
"""Less than a tile, one, more, and more than a block."""


@dataclass(frozen=True)
class Kind:
    """A kind of weights.

    Args:
        dtype: of inputs and outputs.
        make: quantizes a layer.
        weights: what a layer's weights stand for, float64.
        inputs: what inputs are multiplied as, float64.
    """

    dtype: torch.dtype
    make: Callable[[nn.Linear], nn.Module]
    weights: Callable[[nn.Module], torch.Tensor]
    inputs: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.double


def nf4(layer: nn.Linear, *, double_quantization: bool = True) -> Linear4bit:
    packed = Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
    )
    packed.weight = Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=double_quantization
    )
    packed.bias = layer.bias
    return packed.to("cpu").eval()


def nf4_weights(layer: nn.Module) -> torch.Tensor:
    """By the definition: the value a place stands for, which is kept in bfloat16, times its block's scale."""
    state = layer.weight.quant_state
    scales = state.absmax
    if state.nested:
        # Places among 256 values, which share a scale in larger blocks (QLoRA, section 3).
        nested = state.state2
        blocks = nested.absmax.double().repeat_interleave(nested.blocksize)[: scales.numel()]
        scales = nested.code[scales.long()].double() * blocks + state.offset.double()
    pairs = layer.weight.data.flatten()
    places = torch.stack((pairs >> 4, pairs & 15), dim=1).long().flatten()
    values = state.code.bfloat16().double()[places]
    return (values * scales.double().repeat_interleave(64)).view(layer.out_features, layer.in_features)


def int8_weights(layer: nn.Module) -> torch.Tensor:
    return (layer.weight.double() - layer.zeros.double()[:, None]) * layer.scales.double()[:, None]


def int8_inputs(inputs: torch.Tensor) -> torch.Tensor:
    """In groups, each with its greatest magnitude as 127 steps, rounded in float32 as the kernel does."""
    groups = inputs.float().unflatten(-1, (-1, GROUP))
    greatest = groups.abs().amax(-1, keepdim=True)
    factors = torch.where(greatest > 0, 127 / greatest, torch.zeros_like(greatest))
    whole = (groups.double() * factors.double()).float().round()  # one rounding: multiplied and added at once
    return (whole.double() * (greatest * (1 / 127)).double()).flatten(-2)


KINDS = {
    "nf4": Kind(torch.bfloat16, nf4, nf4_weights),
    "int8-bf16": Kind(torch.bfloat16, Int8Linear, int8_weights, int8_inputs),
    "int8-fp32": Kind(torch.float32, Int8Linear, int8_weights, int8_inputs),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen = KINDS[request.param]
    if kernel(f"linear.{request.param.partition('-')[0]}", chosen.dtype) is None:
        pytest.skip("this machine has no kernel for them")
    return chosen


def quantized(kind: Kind, sizes: tuple[int, int], *, bias: bool = True) -> nn.Module:
    layer = kind.make(nn.Linear(*sizes, bias=bias, dtype=kind.dtype))
    assert compiled_in(layer) == kind.dtype
    return layer


def defined(kind: Kind, layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    output = kind.inputs(inputs) @ kind.weights(layer).T
    return output if layer.bias is None else output + layer.bias.double()


def assert_close(kind: Kind, found: torch.Tensor, expected: torch.Tensor) -> None:
    # What is left with bf16 is the rounding of the result, to 8 bits; in eight bits an input halfway between
    # two steps may become either.
    within = 2**-8 if kind.dtype == torch.bfloat16 else 1e-3
    torch.testing.assert_close(found.double(), expected, atol=2 * within, rtol=within)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_product_and_what_is_added(kind: Kind, sizes: tuple[int, int], bias: bool, team: int) -> None:
    layer = quantized(kind, sizes, bias=bias)
    compiled = CompiledLinear([layer])
    for rows in ROWS:
        inputs = torch.randn(rows, 1, sizes[0], dtype=kind.dtype)
        other = torch.randn(rows, 1, sizes[1], dtype=kind.dtype)
        expected = defined(kind, layer, inputs)
        found = compiled(inputs)
        assert found.shape == (rows, 1, sizes[1])
        assert found.dtype == kind.dtype
        assert_close(kind, found, expected)
        assert_close(kind, compiled.add(inputs, other), expected + other.double())


@pytest.mark.parametrize("sizes", SIZES)
def test_layers_side_by_side_behind_a_norm(kind: Kind, sizes: tuple[int, int], team: int) -> None:
    layers = [quantized(kind, sizes), quantized(kind, (sizes[0], 50))]
    scales = torch.rand(sizes[0]).to(kind.dtype) + 0.5
    compiled = CompiledLinear(layers, norm=(scales, 1e-3))
    for rows in ROWS:
        inputs = torch.randn(rows, sizes[0], dtype=kind.dtype)
        exact = inputs.double()
        normalized = exact / (exact.square().mean(-1, keepdim=True) + 1e-3).sqrt() * scales.double()
        expected = [defined(kind, one, normalized.to(kind.dtype)) for one in layers]
        # A number may be rounded to its neighbour, and in eight bits to the next step.
        torch.testing.assert_close(compiled(inputs).double(), torch.cat(expected, -1), atol=3e-2, rtol=2e-2)


@pytest.mark.parametrize("sizes", SIZES)
def test_what_gates_let_through(kind: Kind, sizes: tuple[int, int], team: int) -> None:
    gate, up = (quantized(kind, sizes) for _ in range(2))
    compiled = CompiledLinear([gate, up], gated=True)
    for rows in ROWS:
        inputs = torch.randn(rows, sizes[0], dtype=kind.dtype)
        expected = nn.functional.silu(defined(kind, gate, inputs)) * defined(kind, up, inputs)
        assert_close(kind, compiled(inputs), expected)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_model_that_overflowed_is_seen_to_have(kind: Kind, broken: float) -> None:
    layer = quantized(kind, (64, 100))
    inputs = torch.randn(12, 64, dtype=kind.dtype)
    inputs[5, 3] = broken
    whole = [row for row in range(12) if row != 5]
    for compiled in (
        CompiledLinear([layer]),
        CompiledLinear([layer], norm=(torch.ones(64, dtype=kind.dtype), 1e-5)),
    ):
        found = compiled(inputs)
        assert not found[5].isfinite().any()
        assert found[whole].isfinite().all()


def test_rows_and_groups_of_zeros(kind: Kind) -> None:
    layer = quantized(kind, (128, 100))
    inputs = torch.randn(6, 128, dtype=kind.dtype)
    inputs[2] = 0
    inputs[4, 32:64] = 0
    found = CompiledLinear([layer])(inputs)
    assert_close(kind, found, defined(kind, layer, inputs))
    torch.testing.assert_close(found[2], layer.bias)


def test_the_least_and_the_greatest_numbers(kind: Kind) -> None:
    layer = quantized(kind, (64, 100), bias=False)
    inputs = torch.randn(4, 64).to(kind.dtype)
    for factor in (2.0**-90, 2.0**90):
        scaled = inputs * factor
        expected = defined(kind, layer, inputs)
        torch.testing.assert_close(
            CompiledLinear([layer])(scaled).double() / factor, expected, atol=2e-2, rtol=2e-2
        )


def test_nf4_scales_that_are_not_quantized() -> None:
    if kernel("linear.nf4", torch.bfloat16) is None:
        pytest.skip("this machine has no kernel for them")
    kind = KINDS["nf4"]
    layer = nf4(nn.Linear(128, 96, dtype=torch.bfloat16), double_quantization=False)
    inputs = torch.randn(3, 128, dtype=torch.bfloat16)
    assert_close(kind, CompiledLinear([layer])(inputs), defined(kind, layer, inputs))


def test_what_is_not_compiled() -> None:
    if kernel("linear.nf4", torch.bfloat16) is not None:
        assert compiled_in(nf4(nn.Linear(128, 96, dtype=torch.bfloat16))) == torch.bfloat16
    if kernel("linear.int8", torch.float32) is not None:
        assert compiled_in(Int8Linear(nn.Linear(64, 96))) == torch.float32
    other_blocks = nf4(nn.Linear(128, 96, dtype=torch.bfloat16))
    other_blocks.weight.quant_state.blocksize = 128
    laid_out_anew = nf4(nn.Linear(128, 96, dtype=torch.bfloat16))
    laid_out_anew.weight.quant_state.packing_format_for_cpu = True
    in_float32 = nf4(nn.Linear(128, 96, dtype=torch.bfloat16))
    in_float32.compute_dtype = torch.float32
    narrow = Int8Linear(nn.Linear(48, 96))  # no whole groups
    for layer in (other_blocks, laid_out_anew, in_float32, narrow):
        assert compiled_in(layer) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_weights_are_the_nearest_of_256(dtype: torch.dtype) -> None:
    plain = nn.Linear(300, 40, dtype=dtype)
    plain.weight[3] = 0
    plain.weight[4] = plain.weight[4].abs() + 1
    plain.weight[5, 7] = 0
    layer = Int8Linear(plain)
    exact = plain.weight.double()
    span = exact.amax(1).clamp(min=0) - exact.amin(1).clamp(max=0)
    difference = (int8_weights(layer) - exact).abs().amax(1)
    assert (difference <= span / 255 * 0.5001).all()
    assert int8_weights(layer)[3].eq(0).all()
    assert int8_weights(layer)[5, 7] == 0
    inputs = torch.randn(5, 300, dtype=dtype)
    expected = inputs.double() @ layer.dequantized().double().T + plain.bias.double()
    within = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(layer(inputs).double(), expected, atol=within, rtol=within)
