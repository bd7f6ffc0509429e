"""The innermost loop of a matrix product, as LLVM code: a few rows times a panel, in registers.

Numba's own loops leave it to LLVM where sums are kept; here they stay in vector registers until they are
complete. With bfloat16 one instruction (VDPBF16PS of AVX-512 BF16) multiplies 32 pairs and adds them to 16
sums. A panel is laid out in the order in which it is read, so that memory is read from one end to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from serving.engine.torch.compiled.keeping import cpu_features
from serving.engine.torch.compiled.layout import PANEL, TILE_ROWS
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

__all__ = ["INSTRUCTIONS", "TILE", "Instructions", "by_precision", "strided_tile", "tile"]

_INT32, _INT64, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()

_PAIRS = 2
"""Input features that one bfloat16 product adds up."""


@dataclass(frozen=True)
class Instructions:
    """What a kind of processor has.

    Args:
        lanes: float32 numbers of a vector.
        rows: rows of a tile at most.
        sums: vectors of sums that fit into its registers beside weights and inputs.
        bfloat16: whether it multiplies bfloat16.
        tiles: whether it has AMX, which is left to oneDNN: with many rows it is far faster.
    """

    lanes: int
    rows: int
    sums: int
    bfloat16: bool = False
    tiles: bool = False


def _instructions() -> Instructions | None:
    """Return those of this machine; None where they are not among the known ones."""
    has = set(cpu_features().split(","))
    if "+avx512f" in has:
        return Instructions(16, TILE_ROWS, 24, bfloat16="+avx512bf16" in has, tiles="+amx-bf16" in has)
    if {"+avx2", "+fma"} <= has:
        return Instructions(8, 6, 12)
    return None


INSTRUCTIONS = _instructions()
"""Of this machine."""

TILE = INSTRUCTIONS.rows if INSTRUCTIONS else 1
"""Rows of a tile at most."""


def by_precision(**kernels: Any) -> dict[str, Any]:
    """Return those that this machine has the instructions for, and for which no library has better ones.

    Args:
        kernels: by the precision they compute in: ``float32`` or ``bfloat16``.
    """
    if INSTRUCTIONS is None:
        return {}
    if not INSTRUCTIONS.bfloat16 or INSTRUCTIONS.tiles:
        kernels.pop("bfloat16", None)
    return kernels


@intrinsic
def tile(
    context: Any, stored: Any, rows: Any, inputs: Any, row_bytes: Any, panel: Any, steps: Any, sums: Any
) -> Any:
    """Add the products of inputs and a panel to ``sums[row, column]``, float32 ``[rows, PANEL]``.

    Args:
        context: Numba's.
        stored: the type numbers are held as: ``np.uint16``, which means bfloat16, or ``np.float32``.
        rows: 1 to ``INSTRUCTIONS.rows``.
        inputs: address of the first row.
        row_bytes: from one row to the next.
        panel: address of float32 ``[steps, PANEL]``, or bfloat16 ``[steps, PANEL, 2]``.
        steps: numbers of a row, or pairs of them; at least one.
        sums: address of what is added to.
    """
    kind = _kind(stored)

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        _, rows, inputs, row_bytes, *others = arguments
        _emit(builder, kind, PANEL, rows, inputs, row_bytes, _INT64(4), *others)

    return types.void(stored, *[types.int64] * 6), generate


@intrinsic(prefer_literal=True)
def strided_tile(
    context: Any,
    stored: Any,
    width: Any,
    rows: Any,
    inputs: Any,
    row_bytes: Any,
    step_bytes: Any,
    panel: Any,
    steps: Any,
    sums: Any,
) -> Any:
    """Do the same for panels of ``width`` columns, and rows whose steps lie apart.

    It is a function that is called, as LLVM takes long for each copy of the loops; where a panel is read from
    memory for few rows, ``tile`` is up to a tenth faster.

    Args:
        context: Numba's.
        stored: see ``tile``, as all that is not said here.
        width: of the panel, a number in the source: a multiple of 16, at most ``PANEL``.
        rows: 1 to ``INSTRUCTIONS.rows``.
        inputs: address of the first row.
        row_bytes: from one row to the next.
        step_bytes: from one step of a row to the next; each is four bytes.
        panel: address of ``[steps, width]``.
        steps: numbers of a row, or pairs of them.
        sums: address of float32 ``[rows, width]``.
    """
    kind = _kind(stored)

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        columns, module = width.literal_value, builder.module
        name = f"trimaran_tile_{columns}_{kind}"
        if name not in module.globals:
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INT64] * 7), name)
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            body = ir.IRBuilder(function.append_basic_block())
            _emit(body, kind, columns, *function.args)
            body.ret_void()
        builder.call(module.globals[name], arguments[2:])

    return types.void(stored, width, *[types.int64] * 7), generate


def _kind(stored: Any) -> Any:
    """Return LLVM's type of numbers that are held as ``stored``."""
    return BFloat16() if stored.dtype == types.uint16 else _FLOAT


def _emit(builder: Any, kind: Any, columns: int, rows: Any, *places: Any) -> None:
    """Emit a tile of any number of rows; ``places`` are what ``_emit_loop`` takes behind ``kind``."""
    assert INSTRUCTIONS is not None
    lanes, registers = INSTRUCTIONS.lanes, INSTRUCTIONS.sums
    whole = columns // lanes

    def case(count: int) -> None:
        # The most vectors of a panel whose sums fit; what is left of it is computed by further loops.
        vectors = max(part for part in range(1, whole + 1) if whole % part == 0 and part * count <= registers)
        for first in range(0, whole, vectors):
            _emit_loop(builder, count, columns, lanes, range(first, first + vectors), kind, *places)

    by_rows(builder, rows, INSTRUCTIONS.rows, case)


def _emit_loop(
    builder: Any,
    rows: int,
    columns: int,
    lanes: int,
    vectors: range,
    kind: Any,
    inputs: Any,
    row_bytes: Any,
    step_bytes: Any,
    panel: Any,
    steps: Any,
    sums: Any,
) -> None:
    """Emit a fixed number of rows times these vectors of a panel; the builder is behind it afterwards."""
    sums_type = ir.VectorType(_FLOAT, lanes)
    factors_type = sums_type if kind is _FLOAT else ir.VectorType(kind, _PAIRS * lanes)
    places = [
        builder.add(sums, _INT64(4 * (row * columns + vector * lanes)))
        for row in range(rows)
        for vector in vectors
    ]

    def step(at: Any, totals: list[Any]) -> list[Any]:
        start = builder.add(panel, builder.mul(at, _INT64(4 * columns)))
        factors = [
            load(builder, builder.add(start, _INT64(4 * lanes * vector)), factors_type) for vector in vectors
        ]
        grown = []
        # Row after row: not all rows' inputs have a register beside the sums.
        for row in range(rows):
            begin = builder.add(inputs, builder.mul(row_bytes, _INT64(row)))
            # A row of bfloat16 may begin at any of them.
            bits = load(builder, builder.add(begin, builder.mul(at, step_bytes)), _INT32, align=2)
            number = repeated(builder, bits, lanes, factors_type)
            some = totals[row * len(vectors) : (row + 1) * len(vectors)]
            for total, factor in zip(some, factors, strict=True):
                grown.append(_multiply_add(builder, total, factor, number))
        return grown

    totals = loop(builder, steps, step, [load(builder, place, sums_type) for place in places])
    for place, total in zip(places, totals, strict=True):
        store(builder, total, place)


def _multiply_add(builder: Any, total: Any, one: Any, other: Any) -> Any:
    """Return ``total + one * other``."""
    sums, factors = total.type, one.type
    if factors == sums:
        return multiply_add(builder, total, one, other)
    arguments = [(sums, total), (factors, one), (factors, other)]
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", sums, arguments)
