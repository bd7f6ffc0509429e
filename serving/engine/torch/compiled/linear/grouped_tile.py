"""The innermost loop of linear layers whose numbers are scaled by groups of input features, as LLVM code.

A group's products are added up by themselves, in registers, and then join the sums times their scale. NF4
weights have a scale for each output; eight-bit inputs have one for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from serving.engine.torch.compiled.layout import GROUP, NF4_BLOCK, PANEL
from serving.engine.torch.compiled.llvm import (
    BFloat16,
    by_rows,
    call,
    load,
    loop,
    multiply_add,
    repeated,
    store,
)

__all__ = ["GROUPED_ROWS", "int8_tile", "nf4_tile"]

GROUPED_ROWS = 4
"""Rows of a tile at most: their sums, and a group's, fit into the registers."""

_LANES = 16
_INT32, _INT64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT32, _LANES), ir.VectorType(_FLOAT, _LANES)
_PAIRS = ir.VectorType(BFloat16(), 2 * _LANES)
_VECTORS = range(PANEL // _LANES)


@dataclass(frozen=True)
class _Kind:
    """What is multiplied; an input step is four bytes of each row, a weight step four of each output.

    Args:
        steps: of a group.
        factors: type of a vector of weights, and of an input in every lane.
        products: type of a group's sums.
        multiply: emits ``total + weights * input``.
        fold: ``fold(builder, total, products, row, vector, group)`` emits their sum with ``total``.
    """

    steps: int
    factors: Any
    products: Any
    multiply: Callable[[Any, Any, Any, Any], Any]
    fold: Callable[[Any, Any, Any, int, int, Any], Any]


@intrinsic
def nf4_tile(
    context: Any, rows: Any, inputs: Any, row_bytes: Any, weights: Any, scales: Any, blocks: Any, sums: Any
) -> Any:
    """Add products of bfloat16 inputs and NF4 weights to ``sums[row, column]``, float32 ``[rows, PANEL]``.

    Args:
        context: Numba's.
        rows: 1 to ``GROUPED_ROWS``.
        inputs: address of the first row.
        row_bytes: from one row to the next.
        weights: address of bfloat16 ``[blocks * NF4_BLOCK / 2, PANEL, 2]``, not scaled yet.
        scales: address of float32 ``[blocks, PANEL]``.
        blocks: blocks of input features; at least one.
        sums: address of what is added to.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        rows, inputs, row_bytes, weights, scales, blocks, sums = arguments

        def multiply(builder: Any, total: Any, some: Any, number: Any) -> Any:
            factors = [(_FLOATS, total), (_PAIRS, some), (_PAIRS, number)]
            return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, factors)

        def fold(builder: Any, total: Any, products: Any, row: int, vector: int, group: Any) -> Any:
            place = builder.add(scales, builder.mul(group, _INT64(4 * PANEL)))
            scale = load(builder, builder.add(place, _INT64(4 * _LANES * vector)), _FLOATS)
            return multiply_add(builder, total, products, scale)

        kind = _Kind(NF4_BLOCK // 2, _PAIRS, _FLOATS, multiply, fold)
        _emit(builder, kind, rows, inputs, row_bytes, weights, blocks, sums)

    return types.void(*[types.int64] * 7), generate


@intrinsic
def int8_tile(
    context: Any,
    rows: Any,
    inputs: Any,
    row_bytes: Any,
    scales: Any,
    scale_bytes: Any,
    weights: Any,
    groups: Any,
    sums: Any,
) -> Any:
    """Add products of int8 inputs and uint8 weights to ``sums[row, column]``, float32 ``[rows, PANEL]``.

    Args:
        context: Numba's.
        rows: 1 to ``GROUPED_ROWS``.
        inputs: address of the first row, int8.
        row_bytes: from one row to the next.
        scales: address of the first row's, one float32 for each group.
        scale_bytes: from one row's to the next.
        weights: address of uint8 ``[groups * GROUP / 4, PANEL, 4]``.
        groups: groups of input features; at least one.
        sums: address of what is added to.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        rows, inputs, row_bytes, scales, scale_bytes, weights, groups, sums = arguments

        def multiply(builder: Any, total: Any, some: Any, number: Any) -> Any:
            factors = [(_INTS, total), (_INTS, some), (_INTS, number)]
            return call(builder, "llvm.x86.avx512.vpdpbusd.512", _INTS, factors)

        def fold(builder: Any, total: Any, products: Any, row: int, vector: int, group: Any) -> Any:
            place = builder.add(scales, builder.mul(scale_bytes, _INT64(row)))
            bits = load(builder, builder.add(place, builder.shl(group, _INT64(2))), _INT32)
            scale = repeated(builder, bits, _LANES, _FLOATS)
            return multiply_add(builder, total, builder.sitofp(products, _FLOATS), scale)

        kind = _Kind(GROUP // 4, _INTS, _INTS, multiply, fold)
        _emit(builder, kind, rows, inputs, row_bytes, weights, groups, sums)

    return types.void(*[types.int64] * 8), generate


def _emit(
    builder: Any, kind: _Kind, rows: Any, inputs: Any, row_bytes: Any, weights: Any, groups: Any, sums: Any
) -> None:
    def case(count: int) -> None:
        _emit_rows(builder, kind, count, inputs, row_bytes, weights, groups, sums)

    by_rows(builder, rows, GROUPED_ROWS, case)


def _emit_rows(
    builder: Any, kind: _Kind, rows: int, inputs: Any, row_bytes: Any, weights: Any, groups: Any, sums: Any
) -> None:
    """Emit a fixed number of rows times a panel; the builder is behind it afterwards."""
    cells = [(row, vector) for row in range(rows) for vector in _VECTORS]
    places = [builder.add(sums, _INT64(4 * (row * PANEL + _LANES * vector))) for row, vector in cells]
    starts = [builder.add(inputs, builder.mul(row_bytes, _INT64(row))) for row in range(rows)]
    zero = ir.Constant(kind.products, [kind.products.element(0)] * _LANES)

    def step(at: Any, products: list[Any]) -> list[Any]:
        panel = builder.add(weights, builder.mul(at, _INT64(4 * PANEL)))
        factors = [
            load(builder, builder.add(panel, _INT64(4 * _LANES * vector)), kind.factors)
            for vector in _VECTORS
        ]
        numbers = []
        for start in starts:
            # A row may begin at any number.
            bits = load(builder, builder.add(start, builder.shl(at, _INT64(2))), _INT32, align=1)
            numbers.append(repeated(builder, bits, _LANES, kind.factors))
        return [
            kind.multiply(builder, total, factors[vector], numbers[row])
            for total, (row, vector) in zip(products, cells, strict=True)
        ]

    def group(number: Any, totals: list[Any]) -> list[Any]:
        first = builder.mul(number, _INT64(kind.steps))
        products = loop(
            builder,
            _INT64(kind.steps),
            lambda within, products: step(builder.add(first, within), products),
            [zero] * len(cells),
        )
        return [
            kind.fold(builder, total, some, row, vector, number)
            for total, some, (row, vector) in zip(totals, products, cells, strict=True)
        ]

    totals = loop(builder, groups, group, [load(builder, place, _FLOATS) for place in places])
    for place, total in zip(places, totals, strict=True):
        store(builder, total, place)
