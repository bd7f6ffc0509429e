"""Compiled linear layers, and what belongs to them, against the definition in float64."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from serving.engine.torch.compiled import tile
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.linear import float_kernel
from serving.engine.torch.compiled.linear.layer import CompiledLinear, compiled_in
from serving.engine.torch.compiled.tile import Instructions
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.products import gated_product, product
from tests.serving.engine.torch.architectures import tiny_model

pytestmark = pytest.mark.usefixtures("without_gradients")

SIZES = [(576, 960), (64, 100), (96, 33), (8, 7), (2, 48)]
"""Input and output features: whole panels, a part of one, and less than one."""

ROWS = [1, 2, 7, 8, 9, 31, 129, 300]
"""Less than a tile, one, more, and more than a block."""


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    if str(chosen).partition(".")[2] not in float_kernel.KERNELS:
        pytest.skip("this machine computes them by oneDNN")
    assert kernel("linear.float", chosen) is not None
    return chosen


def layer(sizes: tuple[int, int], dtype: torch.dtype, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(*sizes, bias=bias, dtype=dtype)


def defined(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    output = inputs.double() @ layer.weight.double().T
    return output if layer.bias is None else output + layer.bias.double()


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    # What is left with bf16 is the rounding of the result, to 8 bits.
    within = 1e-5 if found.dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.double(), expected, atol=2 * within, rtol=within)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_the_product_and_what_is_added(
    sizes: tuple[int, int], bias: bool, dtype: torch.dtype, team: int
) -> None:
    plain = layer(sizes, dtype, bias=bias)
    compiled = CompiledLinear([plain])
    for rows in ROWS:
        inputs = torch.randn(rows, 1, sizes[0], dtype=dtype)
        other = torch.randn(rows, 1, sizes[1], dtype=dtype)
        expected = defined(plain, inputs)
        found = compiled(inputs)
        assert found.shape == (rows, 1, sizes[1])
        assert found.dtype == dtype
        assert_close(found, expected)
        assert_close(compiled.add(inputs, other), expected + other.double())


@pytest.mark.parametrize("sizes", SIZES)
def test_layers_side_by_side_behind_a_norm(sizes: tuple[int, int], dtype: torch.dtype, team: int) -> None:
    layers = [layer(sizes, dtype), layer((sizes[0], 50), dtype)]
    scales = torch.rand(sizes[0]).to(dtype) + 0.5
    compiled = CompiledLinear(layers, norm=(scales, 1e-3))
    for rows in ROWS:
        inputs = torch.randn(rows, sizes[0], dtype=dtype)
        exact = inputs.double()
        normalized = exact / (exact.square().mean(-1, keepdim=True) + 1e-3).sqrt() * scales.double()
        expected = [defined(one, normalized.to(dtype)) for one in layers]
        within = 2e-5 if dtype == torch.float32 else 2e-2  # a number may be rounded to its neighbour
        torch.testing.assert_close(
            compiled(inputs).double(), torch.cat(expected, -1), atol=within, rtol=within
        )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_what_gates_let_through(sizes: tuple[int, int], bias: bool, dtype: torch.dtype, team: int) -> None:
    gate, up = (layer(sizes, dtype, bias=bias) for _ in range(2))
    compiled = CompiledLinear([gate, up], gated=True)
    assert compiled.out_features == sizes[1]
    for rows in ROWS:
        inputs = 3 * torch.randn(rows, sizes[0], dtype=dtype)
        expected = nn.functional.silu(defined(gate, inputs)) * defined(up, inputs)
        assert_close(compiled(inputs), expected)


def test_gates_of_any_size(dtype: torch.dtype) -> None:
    gate, up = (layer((2, 3), dtype, bias=False) for _ in range(2))
    gate.weight.fill_(1)
    up.weight.fill_(1)
    compiled = CompiledLinear([gate, up], gated=True)
    for number in (0.0, 1e-30, -1e-3, 5.0, -5.0, 80.0, -80.0, 1e15, -1e15):
        inputs = torch.tensor([[number, number]]).to(dtype)
        exact = inputs.double().sum().expand(1, 3)
        expected = nn.functional.silu(exact) * exact
        torch.testing.assert_close(compiled(inputs).double(), expected, atol=1e-30, rtol=2**-7)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_model_that_overflowed_is_seen_to_have(broken: float, dtype: torch.dtype) -> None:
    plain = layer((64, 100), dtype)
    scales = torch.ones(64, dtype=dtype)
    inputs = torch.randn(12, 64, dtype=dtype)
    inputs[5, 3] = broken
    whole = [row for row in range(12) if row != 5]
    for compiled in (
        CompiledLinear([plain]),
        CompiledLinear([plain], norm=(scales, 1e-5)),
        CompiledLinear([plain, layer((64, 100), dtype)], gated=True),
    ):
        found = compiled(inputs)
        assert not found[5].isfinite().all()
        assert found[whole].isfinite().all()


def test_inputs_may_lie_apart_or_be_none(dtype: torch.dtype) -> None:
    plain = layer((64, 100), dtype)
    compiled = CompiledLinear([plain])
    wide = torch.randn(5, 200, dtype=dtype)
    assert_close(compiled(wide[:, 32:96]), defined(plain, wide[:, 32:96]))
    assert_close(compiled(wide[:, 1:65]), defined(plain, wide[:, 1:65]))
    assert_close(compiled(wide[:, :128:2]), defined(plain, wide[:, :128:2]))
    assert_close(compiled(wide[0, :64].expand(9, 64)), defined(plain, wide[0, :64].expand(9, 64)))
    other = torch.randn(100, 5, dtype=dtype).T
    found = compiled.add(wide[:, :64], other)
    assert_close(found, defined(plain, wide[:, :64]) + other.double())
    assert compiled(torch.empty(0, 3, 64, dtype=dtype)).shape == (0, 3, 100)


def test_rows_of_zeros_without_an_epsilon_are_no_numbers(dtype: torch.dtype) -> None:
    plain = layer((64, 100), dtype)
    inputs = torch.randn(20, 64, dtype=dtype)
    inputs[3] = 0
    found = CompiledLinear([plain], norm=(torch.ones(64, dtype=dtype), 0.0))(inputs)
    assert found[3].isnan().all()
    assert found[4:].isfinite().all()


def test_what_the_kernel_would_read_beyond_its_end_is_refused(dtype: torch.dtype) -> None:
    compiled = CompiledLinear([layer((64, 100), dtype)])
    inputs, other = torch.ones(2, 64, dtype=dtype), torch.ones(2, 100, dtype=dtype)
    with pytest.raises(ValueError, match=r"\[2, 128\].* 64 features"):
        compiled(torch.ones(2, 128, dtype=dtype))
    with pytest.raises(ValueError, match="float64"):
        compiled(inputs.double())
    with pytest.raises(ValueError, match="meta"):
        compiled(inputs.to("meta"))
    with pytest.raises(ValueError, match="cannot be added"):
        compiled.add(inputs, other[:1])
    with pytest.raises(ValueError, match="100 features"):
        compiled.add(inputs, other[:, :50])


def test_no_weight_of_the_checkpoint_is_kept(dtype: torch.dtype) -> None:
    """One tensor that is mapped from a file keeps all of the file in memory."""
    model = tiny_model().to(dtype)
    parameters = list(model.parameters())  # they stay, so that their places are not taken by others
    loaded = {value.untyped_storage().data_ptr() for value in parameters}
    prepare_model(model)
    compiled = [module for module in model.modules() if isinstance(module, CompiledLinear)]
    assert len(compiled) == 9  # four in each of two layers, and the head
    for module in compiled:
        for held in (*module._panels.tensors.values(), module._norm, module._bias):
            assert held is None or held.untyped_storage().data_ptr() not in loaded


def test_a_compiled_layer_is_not_copied(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.deepcopy(CompiledLinear([layer((64, 100), dtype)]))


def test_what_is_not_compiled() -> None:
    class Special(nn.Linear):
        pass

    assert compiled_in(nn.Linear(8, 8)) == torch.float32
    assert compiled_in(Special(8, 8)) is None
    assert compiled_in(nn.Linear(8, 8, dtype=torch.float16)) is None
    assert compiled_in(nn.Linear(7, 8, dtype=torch.bfloat16)) is None  # bfloat16 is multiplied in pairs
    assert compiled_in(nn.Linear(8, 8, device="meta")) is None


@pytest.mark.parametrize(
    ("instructions", "kinds"),
    [
        (None, set()),
        (Instructions(8, 6, 12), {"float32"}),
        (Instructions(16, 8, 24), {"float32"}),
        (Instructions(16, 8, 24, bfloat16=True), {"float32", "bfloat16"}),
        (Instructions(16, 8, 24, bfloat16=True, tiles=True), {"float32"}),
    ],
)
def test_kernels_are_those_that_the_machine_computes_best(
    instructions: Instructions | None, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile, "INSTRUCTIONS", instructions)
    assert set(tile.by_precision(float32="one", bfloat16="another")) == kinds


def test_shorter_vectors_compute_the_same() -> None:
    """A machine without AVX-512; the process compiles for the instructions it is told."""
    program = """
import torch
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.linear.layer import CompiledLinear
from serving.engine.torch.compiled.prompt_attention import attend_prompt, kernel_for_prompt
from serving.engine.torch.compiled.tile import INSTRUCTIONS
assert INSTRUCTIONS.lanes == 8, INSTRUCTIONS
assert kernel("linear.float", torch.bfloat16) is None
close = {"atol": 1e-5, "rtol": 1e-5}
with torch.inference_mode():
    for rows in (1, 2, 3, 5, 6, 7, 130):
        gate, up, inputs = torch.nn.Linear(96, 100), torch.nn.Linear(96, 100), torch.randn(rows, 96)
        scales, other = torch.rand(96), torch.randn(rows, 100)
        torch.testing.assert_close(CompiledLinear([up]).add(inputs, other), up(inputs) + other, **close)
        normalized = torch.rms_norm(inputs, (96,), scales, 1e-3)
        expected = torch.nn.functional.silu(gate(normalized)) * up(normalized)
        found = CompiledLinear([gate, up], norm=(scales, 1e-3), gated=True)(inputs)
        torch.testing.assert_close(found, expected, **close)
    for tokens in (1, 5, 70):
        query = torch.randn(1, 6, tokens, 20)
        key, value = torch.randn(1, 2, 70, 20), torch.randn(1, 2, 70, 12)
        found = attend_prompt(kernel_for_prompt(query, key, value), query, key, value, 70 - tokens, 0.3)
        seen = torch.ones(tokens, 70, dtype=torch.bool).tril(70 - tokens)
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=0.3, enable_gqa=True
        )
        torch.testing.assert_close(found, expected.transpose(1, 2), **close)
print("equal")
"""
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma"}
    environment = {**os.environ, **features}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["equal"], run.stderr


def test_products_of_layers_that_are_not_compiled_are_the_same(dtype: torch.dtype) -> None:
    from serving.engine.torch import products
    from serving.engine.torch.norms import RMSNorm

    first, second = layer((64, 100), dtype), layer((64, 100), dtype)
    norm = RMSNorm(torch.rand(64).to(dtype) + 0.5, 1e-3)
    inputs, other = torch.randn(5, 64, dtype=dtype), torch.randn(5, 100, dtype=dtype)

    def outputs() -> list[torch.Tensor]:
        gated = gated_product(first, second, 8, norm=norm)
        normed = product([first], 8, norm=norm)
        return [
            gated(inputs), gated.add(inputs, other), normed(inputs), normed.add(inputs, other),
            product([first, second], 8)(inputs),
        ]  # fmt: skip

    found = outputs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "compiled_in", lambda layer: None)
        expected = outputs()
    within = 2e-5 if dtype == torch.float32 else 4e-2
    for one, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(one, reference, atol=within, rtol=within)


def test_threads_of_two_engines_do_not_share_what_they_write(dtype: torch.dtype) -> None:
    layers = [layer((576, 960), dtype), layer((96, 200), dtype)]
    wrong: list[int] = []

    def compute_often(number: int) -> None:
        with torch.inference_mode():
            compiled = CompiledLinear([layers[number]])
            inputs = torch.randn(20, layers[number].in_features, dtype=dtype)
            expected = compiled(inputs)
            for _ in range(50):
                if not torch.equal(compiled(inputs), expected):
                    wrong.append(number)

    both = [threading.Thread(target=compute_often, args=(number,)) for number in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not wrong
