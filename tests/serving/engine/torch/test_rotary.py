"""Queries and keys that are rotated by the compiled kernel, and what it writes into the cache."""

from __future__ import annotations

import pytest
import torch

from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.rotary import rotary_call
from serving.engine.torch.plan import Plan

HEADS, KEY_HEADS, SIZE, SLOTS, POSITIONS = 9, 3, 64, 6, 40


def turned(vectors: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate pairs that lie half a vector apart, in float64; ``angles`` is ``[tokens, 1, size / 2]``."""
    first, second = vectors.double().chunk(2, -1)
    cosines, sines = angles.cos(), angles.sin()
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@torch.inference_mode()
def test_queries_and_keys_are_rotated_and_keys_and_values_stored(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    found = kernel("rotary", dtype)
    assert found is not None
    positions = torch.arange(POSITIONS)
    rows = Plan.decode(torch.tensor([[7], [0], [39]]), [8, 1, 40])
    chunk = Plan.prefill(4, positions[3:14].unsqueeze(0), 3)
    for plan in (rows, chunk, Plan.mixed((rows, chunk))):
        slots, at = plan.places()
        assert slots.tolist() == [row for row, _ in expected_places(plan, rows, chunk)]
        assert at.tolist() == [position for _, position in expected_places(plan, rows, chunk)]
        tokens = len(at)
        projected = torch.randn(tokens, HEADS + 2 * KEY_HEADS, SIZE).to(dtype)
        angles = at.view(-1, 1, 1) * 10000.0 ** -torch.linspace(0, 1, SIZE // 2).double()
        cosines = torch.cat((angles.cos(), angles.cos()), -1).to(dtype).view(1, tokens, SIZE)
        sines = torch.cat((angles.sin(), angles.sin()), -1).to(dtype).view(1, tokens, SIZE)
        keys, values = (torch.full((SLOTS, KEY_HEADS, POSITIONS, SIZE), 7.0, dtype=dtype) for _ in range(2))
        before = projected.clone()
        call = rotary_call(found, projected, plan.rotation((cosines, sines)), plan.places(), keys, values)
        call.run(2)
        expected = turned(before[:, : HEADS + KEY_HEADS], angles)
        within = 1e-5 if dtype == torch.float32 else 3e-2  # cosines and sines are rounded, too
        close = {"atol": within, "rtol": within}
        torch.testing.assert_close(projected[:, :HEADS].double(), expected[:, :HEADS], **close)
        written = keys[slots, :, at], values[slots, :, at]
        torch.testing.assert_close(written[0].double(), expected[:, HEADS:], **close)
        assert torch.equal(written[1], before[:, -KEY_HEADS:])
        # Nothing else was touched.
        for stored in (keys, values):
            stored[slots, :, at] = 7.0
            assert torch.equal(stored, torch.full_like(stored, 7.0))


def expected_places(plan: Plan, rows: Plan, chunk: Plan) -> list[tuple[int, int]]:
    of_rows, of_chunk = [(0, 7), (1, 0), (2, 39)], [(4, position) for position in range(3, 14)]
    return {id(rows): of_rows, id(chunk): of_chunk}.get(id(plan), of_rows + of_chunk)


@torch.inference_mode()
def test_what_the_kernel_would_read_or_write_beyond_its_end_is_refused() -> None:
    found = kernel("rotary", torch.float32)
    assert found is not None
    projected = torch.randn(2, HEADS + 2 * KEY_HEADS, SIZE)
    angles, places = torch.ones(2, SIZE), torch.zeros(2, dtype=torch.int64)
    keys = torch.zeros(SLOTS, KEY_HEADS, POSITIONS, SIZE)

    def refused(
        projected: torch.Tensor, angles: torch.Tensor, places: torch.Tensor, keys: torch.Tensor
    ) -> None:
        with pytest.raises(ValueError, match="not of one pass, or not in one precision"):
            rotary_call(found, projected, (angles, angles), (places, places), keys, keys)

    rotary_call(found, projected, (angles, angles), (places, places), keys, keys.clone()).run(2)
    refused(projected, angles[:, : SIZE // 2], places, keys)  # a model that rotates a part of each head
    refused(projected, angles, places[:1], keys)
    refused(projected, angles, places, keys.bfloat16())
    refused(projected, angles, places, keys[:, :, :, : SIZE // 2].contiguous())
    refused(projected[:, ::2], angles, places, keys)
