"""Rows that attend over their own length by the compiled kernel, against the definition in float64."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.engine.slots.runner import Chunk
from serving.engine.torch import attention, preparation
from serving.engine.torch.attention import attend
from serving.engine.torch.compiled import keeping
from serving.engine.torch.compiled.kernels import Kernel, kernel
from serving.engine.torch.compiled.openmp import pytorch_openmp
from serving.engine.torch.compiled.row_attention import attend_by_row, kernel_for_rows
from serving.engine.torch.plan import Plan
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from tests.serving.engine.torch.architectures import tiny_model

SLOTS, POSITIONS = 24, 200


def defined(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], scaling: float
) -> torch.Tensor:
    """Softmax of the scaled scores over each row's own positions, times the values."""
    group = query.shape[1] // key.shape[1]
    rows = []
    for row, length in enumerate(lengths):
        keys = key[row, :, :length].double().repeat_interleave(group, 0)
        values = value[row, :, :length].double().repeat_interleave(group, 0)
        shares = torch.softmax(query[row].double() @ keys.transpose(1, 2) * scaling, dim=-1)
        rows.append((shares @ values).transpose(0, 1))
    return torch.stack(rows)


def attending(dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    found = kernel("row", dtype)
    assert found is not None
    return partial(attend_by_row, found)


def drawn(
    rows: int,
    heads: int,
    key_heads: int,
    size: int,
    value_size: int,
    dtype: torch.dtype,
    scale: float = 1.0,
    firsts: tuple[int, ...] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
    """Return queries, and keys and values as views of a slot cache, whose rest is not a number."""
    torch.manual_seed(rows + size)
    lengths = torch.randint(1, POSITIONS, (rows,)).tolist()
    lengths[: len(firsts)] = firsts
    cache = [
        torch.full((SLOTS, key_heads, POSITIONS, width), torch.nan, dtype=dtype)
        for width in (size, value_size)
    ]
    for stored in cache:
        for row, length in enumerate(lengths):
            stored[row, :, :length] = torch.randn(key_heads, length, stored.shape[-1])
    # A layer may have queries and keys side by side in one tensor.
    query = (scale * torch.randn(rows, 1, heads, 2 * size)).to(dtype)[..., :size].transpose(1, 2)
    key, value = (stored[:rows, :, : max(lengths)] for stored in cache)
    return query, key, value, lengths


@pytest.mark.parametrize(
    ("dtype", "heads", "key_heads", "size", "value_size"),
    [
        (torch.float32, 9, 3, 64, 64),
        (torch.bfloat16, 9, 3, 64, 64),
        (torch.bfloat16, 32, 1, 64, 64),
        (torch.float32, 4, 4, 20, 12),
    ],
    ids=["fp32", "bf16", "one key head", "sizes that differ"],
)
def test_each_row_attends_over_its_own_positions(
    dtype: torch.dtype, heads: int, key_heads: int, size: int, value_size: int, team: int
) -> None:
    compute = attending(dtype)
    # Less than a block of the kernel, just one, one more, and many.
    for firsts in ((1,), (63,), (64,), (65,), (128,), (199, 1), (1, 64, 130)):
        rows = len(firsts) if len(firsts) < 3 else SLOTS
        query, key, value, lengths = drawn(rows, heads, key_heads, size, value_size, dtype, firsts=firsts)
        found = compute(query, key, value, torch.tensor(lengths), size**-0.5)
        assert found.shape == (rows, 1, heads, value_size)
        assert found.dtype == dtype
        expected = defined(query, key, value, lengths, size**-0.5)
        # bf16 has 8 bits: what is left is the rounding of the result.
        within = 2e-6 if dtype == torch.float32 else 2**-8
        torch.testing.assert_close(found.double(), expected, atol=within, rtol=within)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 40.0, 1e4])
def test_scores_of_any_size_give_finite_shares(scale: float) -> None:
    query, key, value, lengths = drawn(7, 9, 3, 64, 64, torch.float32, scale)
    compute = attending(torch.float32)
    found = compute(query, key, value, torch.tensor(lengths), 0.125)
    expected = defined(query, key, value, lengths, 0.125)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_model_that_overflowed_is_seen_to_have(broken: float, dtype: torch.dtype) -> None:
    query, key, value, lengths = drawn(2, 4, 2, 64, 64, dtype)
    query[1, 0, 0], key[1, 0, : lengths[1]] = broken, key[1, 0, : lengths[1]].abs()
    compute = attending(dtype)
    found = compute(query, key, value, torch.tensor(lengths), 0.25)
    assert defined(query, key, value, lengths, 0.25)[1, 0, 0].isnan().all()
    assert found[1, 0, 0].isnan().all()
    assert found[0].isfinite().all()
    assert found[1, 0, 1:].isfinite().all()


def test_one_infinite_score_is_that_of_a_certain_key() -> None:
    """PyTorch's softmax gives NaN for it, too; a score of minus infinity gives no share."""
    compute = attending(torch.float32)
    lengths = torch.tensor([130])
    for position in (3, 100):  # in the kernel's first block and in a later one
        query, key, value = torch.ones(1, 1, 1, 8), torch.randn(1, 1, 130, 8), torch.randn(1, 1, 130, 8)
        key[0, 0, position, 2] = torch.inf
        assert compute(query, key, value, lengths, 1.0).isnan().all()
        key[0, 0, position, 2] = -torch.inf
        expected = defined(query, key, value, [130], 1.0)
        found = compute(query, key, value, lengths, 1.0)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_bf16_is_rounded_to_nearest_and_ties_to_even() -> None:
    # One position: its share is 1, so what is stored is a sum of one value, or of two halves.
    exact = torch.tensor([1.0, 1.0 + 2**-7, 1.0 + 2**-6, -1.0 - 2**-7, 1.5e38], dtype=torch.bfloat16)
    between = torch.stack([exact, torch.tensor([1 + 2**-7, 1.0 + 2**-6, 1.0, -1.0, 1.4e38]).bfloat16()])
    key, query = torch.zeros(1, 1, 2, 5).bfloat16(), torch.zeros(1, 1, 1, 5).bfloat16()
    compute = attending(torch.bfloat16)
    found = compute(query, key, between.view(1, 1, 2, 5), torch.tensor([2]), 1.0).flatten()
    assert torch.equal(found, between.float().mean(0).bfloat16())


def test_what_the_kernel_does_not_read_is_left_to_pytorch() -> None:
    query, key, value, _ = drawn(2, 4, 2, 64, 64, torch.float32)
    assert kernel_for_rows(query, key, value) is not None
    assert kernel_for_rows(query.half(), key.half(), value.half()) is None
    assert kernel_for_rows(query, key.double(), value) is None
    assert kernel_for_rows(query, key.transpose(1, 2).contiguous().transpose(1, 2), value) is None
    assert kernel_for_rows(query, key[..., ::2], value) is None
    assert kernel_for_rows(query, key[:1], value) is None
    assert kernel_for_rows(query, key, value[:, :, :1]) is None
    assert kernel_for_rows(query.expand(-1, -1, 2, -1), key, value) is None


def test_only_the_mask_of_the_pass_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that adds to the scores hands over another mask; a window says that a row does not see all."""
    query, key, value, lengths = drawn(3, 4, 2, 64, 64, torch.float32)
    key, value = key.nan_to_num(), value.nan_to_num()
    positions = torch.tensor(lengths).unsqueeze(1) - 1
    hidden = torch.arange(max(lengths)) > positions.view(-1, 1, 1, 1)
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, torch.finfo(torch.float32).min)
    calls: list[str] = []

    def count(*tensors: torch.Tensor) -> Kernel | None:
        calls.append("asked")
        return kernel_for_rows(*tensors)

    monkeypatch.setattr(attention, "kernel_for_rows", count)
    expected = defined(query, key, value, lengths, 0.25).float()
    for sees_all, same, asked in ((True, True, 1), (True, False, 0), (False, True, 0)):
        calls.clear()
        plan = Plan.decode(positions, lengths, sees_all=sees_all)
        plan.mask = mask if same else mask.clone()
        found = attend(plan, query, key, value, mask, 0.25)
        assert len(calls) == asked
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "used"), [("llama", True), ("qwen3", True), ("mistral with a window", False)]
)
@torch.inference_mode()
def test_decode_passes_use_it_where_rows_see_all(
    name: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "stack_decoder_layers", lambda model: False)  # it calls kernels itself
    model = tiny_model(name)
    prepare_model(model)
    runner = TorchRunner(model, 4, 128)
    calls: list[int] = []

    def count(found: Kernel, query: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(query))
        return attend_by_row(found, query, *rest)

    monkeypatch.setattr(attention, "attend_by_row", count)
    for row in range(3):
        runner.prefill(row, [5, 6, 7 + row], 0)
    assert not calls
    runner.decode([8, 9, 10], [3, 3, 3])
    assert calls == [3] * (model.config.num_hidden_layers if used else 0)


def test_a_pass_of_rows_and_prompts_uses_it_for_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    prepare_model(model)
    runner = TorchRunner(model, 4, 128)
    assert runner.mixes
    calls: list[int] = []

    def count(found: Kernel, query: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(query))
        return attend_by_row(found, query, *rest)

    monkeypatch.setattr(attention, "attend_by_row", count)
    with torch.inference_mode():
        for row in range(2):
            runner.prefill(row, [5, 6, 7 + row], 0)
        runner.compute([8, 9], [3, 3], [Chunk(2, [4, 5, 6], 0)])
    assert calls == [2] * model.config.num_hidden_layers


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """Compiled functions are forgotten before and after."""
    kernel.cache_clear()
    yield
    kernel.cache_clear()


@pytest.mark.usefixtures("nothing_compiled")
def test_without_numba_pytorch_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value, _ = drawn(2, 4, 2, 24, 24, torch.float32)
    monkeypatch.setitem(sys.modules, "serving.engine.torch.compiled.keeping", None)
    assert kernel_for_rows(query, key, value) is None


@pytest.mark.usefixtures("nothing_compiled")
def test_where_it_cannot_be_compiled_pytorch_attends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise TypeError("a later Numba")

    query, key, value, _ = drawn(2, 4, 2, 24, 24, torch.float32)
    monkeypatch.setattr(keeping, "cfunc", refuse)
    with caplog.at_level(logging.WARNING):
        assert kernel_for_rows(query, key, value) is None
    assert "compiled kernel 'row': TypeError: a later Numba" in caplog.text


def test_what_cannot_be_kept_is_compiled_all_the_same(tmp_path: Path) -> None:
    """With a cache whose files were cut, in a process of its own: Numba reads its folder once."""
    program = """
import torch
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.row_attention import attend_by_row
ones = torch.ones(1, 1, 1, 4)
found = attend_by_row(kernel("row", torch.float32), ones, ones, ones, torch.tensor([1]), 1.0)
print(found.flatten().tolist())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for turn in range(3):
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.split("\n")[-2] == "[1.0, 1.0, 1.0, 1.0]"
        kept = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc")]
        assert len(kept) == 2, turn
        # Cut the code first, then the index too.
        for path in kept if turn else [path for path in kept if path.suffix == ".nbc"]:
            path.write_bytes(path.read_bytes()[:40])


def test_threads_of_two_engines_do_not_share_what_they_write() -> None:
    compute = attending(torch.float32)
    cases = [drawn(SLOTS, 9, 3, 64, 64, torch.float32), drawn(5, 4, 4, 20, 12, torch.float32)]
    wrong: list[int] = []

    def attend_often(number: int) -> None:
        query, key, value, lengths = cases[number]
        expected = defined(query, key, value, lengths, 0.2).float()
        for _ in range(50):
            found = compute(query, key, value, torch.tensor(lengths), 0.2)
            if not torch.allclose(found, expected, atol=1e-5):
                wrong.append(number)

    both = [threading.Thread(target=attend_often, args=(number,)) for number in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not wrong


def test_it_runs_on_the_threads_of_pytorch() -> None:
    found = pytorch_openmp()
    assert found is not None
    seen: set[int] = set()
    note = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: seen.add(threading.get_native_id()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.ones(1000, 1000).exp()  # PyTorch's team is there from now on
        running = set(os.listdir("/proc/self/task"))
        found.run(ctypes.cast(note, ctypes.c_void_p).value or 0, 0, 2)
        assert len(seen) == 2
        assert {str(thread) for thread in seen} <= running
    finally:
        torch.set_num_threads(before)
