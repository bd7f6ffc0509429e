"""What the parts of kernels that are written as LLVM code share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

__all__ = ["BFloat16", "by_rows", "call", "load", "loop", "multiply_add", "repeated", "store"]

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


class BFloat16(ir.Type):
    """LLVM's ``bfloat``, which llvmlite does not name."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    _to_string = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat16)

    def __hash__(self) -> int:
        return hash(BFloat16)


def load(builder: Any, address: Any, kind: Any, align: int = 4) -> Any:
    """Emit the reading of a ``kind`` from ``address``."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: Any, value: Any, address: Any, align: int = 4) -> None:
    """Emit the writing of ``value`` to ``address``."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def call(builder: Any, name: str, result: Any, arguments: Sequence[tuple[Any, Any]]) -> Any:
    """Emit a call of the LLVM function ``name`` with ``(type, value)`` each; return its ``result``."""
    function = builder.module.globals.get(name)
    if function is None:
        kinds = [kind for kind, _ in arguments]
        function = ir.Function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, [value for _, value in arguments])


def multiply_add(builder: Any, total: Any, one: Any, other: Any) -> Any:
    """Emit ``total + one * other`` of float32 vectors, rounded once."""
    kind = total.type
    arguments = [(kind, one), (kind, other), (kind, total)]
    return call(builder, f"llvm.fma.v{kind.count}f32", kind, arguments)


def repeated(builder: Any, bits: Any, lanes: int, kind: Any) -> Any:
    """Return the vector, a ``kind``, that has these 32 bits in each of its lanes."""
    vector = ir.VectorType(_INT32, lanes)
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, bits, _INT32(0))
    everywhere = builder.shuffle_vector(first, nothing, ir.Constant(vector, [_INT32(0)] * lanes))
    return builder.bitcast(everywhere, kind)


def loop(
    builder: Any, times: Any, body: Callable[[Any, list[Any]], list[Any]], values: list[Any]
) -> list[Any]:
    """Emit ``values = body(number, values)`` for each number below ``times``; the builder is behind it.

    Args:
        builder: llvmlite's.
        times: int64, at least 1.
        body: emits one turn.
        values: what the first turn begins with.

    Returns:
        What the last one gave.
    """
    before = builder.block
    inside, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(inside)
    builder.position_at_end(inside)
    number = builder.phi(_INT64)
    carried = [builder.phi(value.type) for value in values]
    results = body(number, carried)
    following = builder.add(number, _INT64(1))
    for phi, start, result in zip(
        (number, *carried), (_INT64(0), *values), (following, *results), strict=True
    ):
        phi.add_incoming(start, before)
        phi.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, times), inside, after)
    builder.position_at_end(after)
    return results


def by_rows(builder: Any, rows: Any, most: int, case: Callable[[int], None]) -> None:
    """Emit ``case(count)`` for each count from 1 to ``most``, of which ``rows`` chooses one."""
    done = builder.append_basic_block("done")
    cases = [builder.append_basic_block(f"rows{count}") for count in range(1, most + 1)]
    switch = builder.switch(rows, cases[-1])
    for count, block in enumerate(cases, start=1):
        switch.add_case(_INT64(count), block)
        builder.position_at_end(block)
        case(count)
        builder.branch(done)
    builder.position_at_end(done)
