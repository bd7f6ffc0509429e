"""Pieces of a prompt that attend by the compiled kernel, against the definition in float64."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from serving.engine.slots.runner import Chunk
from serving.engine.torch import attention
from serving.engine.torch.attention import attend
from serving.engine.torch.compiled import prompt_attention, prompt_kernel
from serving.engine.torch.compiled.kernels import Kernel
from serving.engine.torch.compiled.prompt_attention import attend_prompt, kernel_for_prompt
from serving.engine.torch.plan import Plan
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from tests.serving.engine.torch.architectures import tiny_model

SLOTS, POSITIONS = 3, 400

pytestmark = [
    pytest.mark.usefixtures("without_gradients"),
    pytest.mark.skipif(not prompt_kernel.KERNELS, reason="needs AVX2 or AVX-512"),
]


def defined(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, start: int, scaling: float
) -> torch.Tensor:
    """Softmax of the scaled scores over the positions up to each token's own, times the values."""
    _, heads, tokens, _ = query.shape
    group, length = heads // key.shape[1], start + tokens
    keys = key[0, :, :length].double().repeat_interleave(group, 0)
    values = value[0, :, :length].double().repeat_interleave(group, 0)
    scores = query[0].double() @ keys.transpose(1, 2) * scaling
    later = torch.arange(length) > torch.arange(start, length).unsqueeze(1)
    shares = torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
    return (shares @ values).transpose(0, 1).unsqueeze(0)


def drawn(
    start: int,
    tokens: int,
    shape: tuple[int, int, int, int] = (9, 3, 64, 64),
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, and keys and values as views of a slot cache, whose rest is not a number.

    Args:
        start: position of the first token.
        tokens: of the piece.
        shape: heads, key heads, numbers of a key and of a value.
        dtype: of all.
        scale: of the queries.
    """
    heads, key_heads, size, value_size = shape
    length = start + tokens
    seen = []
    for width in (size, value_size):
        cache = torch.full((SLOTS, key_heads, max(POSITIONS, length + 1), width), torch.nan, dtype=dtype)
        cache[1, :, :length] = torch.randn(key_heads, length, width)
        seen.append(cache[1:2, :, :length])
    # A layer may have queries and keys side by side in one tensor.
    query = (scale * torch.randn(1, tokens, heads, 2 * size)).to(dtype)[..., :size].transpose(1, 2)
    return query, seen[0], seen[1]


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """A precision that this machine has the instructions for."""
    if request.param not in prompt_kernel.KERNELS:
        pytest.skip(f"this machine has no instructions for {request.param}, or better ones elsewhere")
    found: torch.dtype = getattr(torch, request.param)
    return found


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, start: int, scaling: float
) -> torch.Tensor:
    found = kernel_for_prompt(query, key, value)
    assert found is not None
    return attend_prompt(found, query, key, value, start, scaling)


SHAPES = {
    "three heads share one": (9, 3, 64, 64),
    "all heads share one": (71, 1, 32, 64),
    "none share": (4, 4, 20, 12),
    "seven share, many numbers": (14, 2, 128, 128),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_token_attends_up_to_its_own_position(
    dtype: torch.dtype, shape: tuple[int, int, int, int], team: int
) -> None:
    # Less than a block of the kernel, just one, one more, and many; in one part and in several.
    for start, tokens in ((0, 1), (0, 5), (0, 64), (0, 65), (3, 16), (63, 1), (60, 8), (0, 150), (389, 11)):
        query, key, value = drawn(start, tokens, shape, dtype)
        found = attended(query, key, value, start, shape[2] ** -0.5)
        assert found.shape == (1, tokens, shape[0], shape[3])
        assert found.dtype == dtype
        expected = defined(query, key, value, start, shape[2] ** -0.5)
        # bf16 has 8 bits, of the shares and of the result.
        within = 2e-6 if dtype == torch.float32 else 2**-7
        torch.testing.assert_close(found.double(), expected, atol=within, rtol=within)


def test_positions_are_in_parts_where_queries_are_too_few_for_all_threads() -> None:
    assert prompt_attention._parts(3, 2000, 2) == 2
    assert prompt_attention._parts(1, 2000, 16) == 15  # of two blocks each at least
    assert prompt_attention._parts(1, 127, 16) == 1
    assert prompt_attention._parts(9, 2000, 2) == 1


@pytest.mark.parametrize("parts", [1, 2, 5, 40])
def test_positions_may_be_in_parts(parts: int, team: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in more than there are blocks, and some that the first tokens do not see."""
    monkeypatch.setattr(prompt_attention, "_parts", lambda *_: parts)
    for start, tokens in ((0, 3), (0, 200), (190, 10), (1000, 40)):
        query, key, value = drawn(start, tokens)
        found = attended(query, key, value, start, 0.125)
        expected = defined(query, key, value, start, 0.125)
        torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("scale", "within"), [(0.0, 1e-5), (1e-3, 1e-5), (40.0, 1e-4), (1e4, 1e-2)])
def test_scores_of_any_size_give_finite_shares(scale: float, within: float) -> None:
    query, key, value = drawn(100, 30, scale=scale)
    found = attended(query, key, value, 100, 0.125)
    expected = defined(query, key, value, 100, 0.125)
    # A score of 1e4 is rounded by 1e-3, which is what shares of nearly equal ones are changed by.
    torch.testing.assert_close(found.double(), expected, atol=within, rtol=within)


def test_later_tokens_have_no_share(dtype: torch.dtype) -> None:
    query, key, value = drawn(0, 130, dtype=dtype)
    expected = attended(query, key, value, 0, 0.125)
    key[0, :, 70:], value[0, :, 70:] = 1e15, 1e30
    found = attended(query, key, value, 0, 0.125)
    assert torch.equal(found[:, :70], expected[:, :70])


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_model_that_overflowed_is_seen_to_have(
    broken: float, parts: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_attention, "_parts", lambda *_: parts)
    query, key, value = drawn(200, 20, dtype=dtype)
    key.abs_()
    query[0, 4, 7] = broken
    found = attended(query, key, value, 200, 0.25)
    assert defined(query, key, value, 200, 0.25)[0, 7, 4].isnan().all()
    assert found[0, 7, 4].isnan().all()
    assert int(found.isnan().sum()) == found.shape[-1]


def test_what_the_kernel_does_not_read_is_left_to_pytorch() -> None:
    query, key, value = drawn(10, 6)
    assert kernel_for_prompt(query, key, value) is not None
    assert kernel_for_prompt(query.half(), key.half(), value.half()) is None
    assert kernel_for_prompt(query, key.double(), value) is None
    assert kernel_for_prompt(query, key[..., ::2], value) is None
    assert kernel_for_prompt(query, key, value[:, :, :1]) is None
    two = [tensor.expand(2, -1, -1, -1) for tensor in (query, key, value)]
    assert kernel_for_prompt(two[0], two[1], two[2]) is None
    odd = drawn(10, 6, (4, 2, 15, 16), torch.bfloat16)
    assert kernel_for_prompt(*odd) is None


def test_only_the_mask_of_the_pass_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that adds to the scores hands over another mask; a window says that it does not see all."""
    query, key, value = drawn(10, 6)
    positions = torch.arange(10, 16).unsqueeze(0)
    hidden = torch.arange(16) > positions.unsqueeze(-1)
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, torch.finfo(torch.float32).min).unsqueeze(1)
    calls: list[str] = []

    def count(*tensors: torch.Tensor) -> Kernel | None:
        calls.append("asked")
        return kernel_for_prompt(*tensors)

    monkeypatch.setattr(attention, "kernel_for_prompt", count)
    expected = defined(query, key, value, 10, 0.25).float()
    for sees_all, same, asked in ((True, True, 1), (True, False, 0), (False, True, 0)):
        calls.clear()
        plan = Plan.prefill(1, positions, 10, sees_all=sees_all)
        plan.mask = mask if same else mask.clone()
        found = attend(plan, query, key, value, mask, 0.25)
        assert len(calls) == asked
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "used"), [("llama", True), ("qwen3", True), ("mistral with a window", False)]
)
def test_prompts_use_it_where_tokens_see_all(name: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name)
    prepare_model(model)
    runner = TorchRunner(model, 4, 128)
    calls: list[tuple[int, int]] = []

    def count(found: Kernel, query: torch.Tensor, key: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append((query.shape[2], key.shape[2]))
        return attend_prompt(found, query, key, *rest)

    monkeypatch.setattr(attention, "attend_prompt", count)
    layers = model.config.num_hidden_layers if used else 0
    runner.prefill(0, [5, 6, 7], 0)
    runner.prefill(1, [5, 6], 0)
    assert calls == [(3, 3)] * layers + [(2, 2)] * layers
    calls.clear()
    runner.compute([8, 9], [3, 2], [Chunk(2, [4, 5, 6, 7], 0), Chunk(2, [1], 4)])
    assert sorted(calls) == sorted([(4, 4), (1, 5)] * layers)


def test_threads_of_two_engines_do_not_share_what_they_write() -> None:
    cases = [(drawn(300, 8), 300), (drawn(0, 90, (4, 4, 20, 12)), 0)]
    wrong: list[int] = []

    def attend_often(number: int) -> None:
        tensors, start = cases[number]
        expected = defined(*tensors, start, 0.2).float()
        for _ in range(50):
            if not torch.allclose(attended(*tensors, start, 0.2), expected, atol=1e-5):
                wrong.append(number)

    both = [threading.Thread(target=attend_often, args=(number,)) for number in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not wrong
