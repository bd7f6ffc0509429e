"""The innermost loop of a linear layer, as LLVM code: a few rows times a panel of weights, in registers.

Numba's own loops leave it to LLVM where sums are kept; here they stay in vector registers until they are
complete. With bfloat16 one instruction (VDPBF16PS of AVX-512 BF16) multiplies 32 pairs and adds them to 16
sums. A panel is laid out in the order in which it is read, so that memory is read from one end to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from serving.engine.torch.compiled.keeping import cpu_features
from serving.engine.torch.compiled.layout import PANEL, TILE_ROWS

__all__ = ["INSTRUCTIONS", "Instructions", "tile"]

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


class _BFloat16(ir.Type):
    """LLVM's ``bfloat``, which llvmlite does not name."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    _to_string = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


INSTRUCTIONS = _instructions()
"""Of this machine."""


@intrinsic
def tile(
    context: Any, stored: Any, rows: Any, inputs: Any, row_bytes: Any, weights: Any, steps: Any, sums: Any
) -> Any:
    """Compute ``sums[row, column]``, float32 ``[rows, PANEL]``, of the products of inputs and weights.

    Args:
        context: Numba's.
        stored: the type numbers are held as: ``np.uint16``, which means bfloat16, or ``np.float32``.
        rows: 1 to ``INSTRUCTIONS.rows``.
        inputs: address of the first row.
        row_bytes: from one row to the next.
        weights: address of a panel: float32 ``[steps, PANEL]``, or bfloat16 ``[steps, PANEL, 2]``.
        steps: input features, or pairs of them; at least one.
        sums: address of what is computed.
    """
    assert INSTRUCTIONS is not None
    lanes, most, registers = INSTRUCTIONS.lanes, INSTRUCTIONS.rows, INSTRUCTIONS.sums
    kind = _BFloat16() if stored.dtype == types.uint16 else _FLOAT

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        _, rows, *places = arguments
        done = builder.append_basic_block("done")
        cases = [builder.append_basic_block(f"rows{count}") for count in range(1, most + 1)]
        switch = builder.switch(rows, cases[-1])
        for count, case in enumerate(cases, start=1):
            switch.add_case(_INT64(count), case)
            builder.position_at_end(case)
            # The most vectors of a panel whose sums fit; what is left of it is computed by further loops.
            whole = PANEL // lanes
            vectors = max(
                part for part in range(1, whole + 1) if whole % part == 0 and part * count <= registers
            )
            for first in range(0, whole, vectors):
                _emit_loop(builder, count, lanes, range(first, first + vectors), kind, *places)
            builder.branch(done)
        builder.position_at_end(done)

    return types.void(stored, *[types.int64] * 6), generate


def _emit_loop(
    builder: Any,
    rows: int,
    lanes: int,
    vectors: range,
    kind: Any,
    inputs: Any,
    row_bytes: Any,
    weights: Any,
    steps: Any,
    sums: Any,
) -> None:
    """Emit a fixed number of rows times these vectors of a panel; the builder is behind it afterwards."""
    sums_type = ir.VectorType(_FLOAT, lanes)
    factors_type = sums_type if kind is _FLOAT else ir.VectorType(kind, _PAIRS * lanes)
    multiply_add = _multiply_add(builder.module, sums_type, factors_type)
    before = builder.block
    loop, after = builder.append_basic_block("step"), builder.append_basic_block("sums")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_INT64)
    totals = [[builder.phi(sums_type) for _ in vectors] for _ in range(rows)]
    panel = builder.add(weights, builder.mul(step, _INT64(4 * PANEL)))
    factors = [
        _load(builder, builder.add(panel, _INT64(4 * lanes * vector)), factors_type) for vector in vectors
    ]
    grown = []
    for row in range(rows):
        begin = builder.add(inputs, builder.mul(row_bytes, _INT64(row)))
        # A row of bfloat16 may begin at any of them.
        bits = _load(builder, builder.add(begin, builder.shl(step, _INT64(2))), _INT32, align=2)
        number = _repeated(builder, bits, lanes, factors_type)
        grown.append(
            [multiply_add(builder, *both, number) for both in zip(totals[row], factors, strict=True)]
        )
    following = builder.add(step, _INT64(1))
    zero = ir.Constant(sums_type, [_FLOAT(0.0)] * lanes)
    for phis, values in zip(totals, grown, strict=True):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(zero, before)
            phi.add_incoming(value, loop)
    step.add_incoming(_INT64(0), before)
    step.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    for row, values in enumerate(grown):
        for vector, value in zip(vectors, values, strict=True):
            place = builder.add(sums, _INT64(4 * (row * PANEL + vector * lanes)))
            builder.store(value, builder.inttoptr(place, sums_type.as_pointer()), align=4)


def _load(builder: Any, address: Any, kind: Any, align: int = 4) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _repeated(builder: Any, bits: Any, lanes: int, kind: Any) -> Any:
    """Return the vector that has these 32 bits, one float32 or two bfloat16, in each of its lanes."""
    vector = ir.VectorType(_INT32, lanes)
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, bits, _INT32(0))
    everywhere = builder.shuffle_vector(first, nothing, ir.Constant(vector, [_INT32(0)] * lanes))
    return builder.bitcast(everywhere, kind)


def _multiply_add(module: Any, sums: Any, factors: Any) -> Callable[..., Any]:
    """Return what emits ``total + one * other``."""
    fused = factors == sums
    name = f"llvm.fma.v{sums.count}f32" if fused else "llvm.x86.avx512bf16.dpbf16ps.512"
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(sums, [sums, factors, factors]), name)

    def emit(builder: Any, total: Any, one: Any, other: Any) -> Any:
        return builder.call(function, [one, other, total] if fused else [total, one, other])

    return emit
