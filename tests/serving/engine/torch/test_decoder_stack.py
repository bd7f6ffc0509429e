"""A decode step of all layers as one program: the numbers of the layers one by one, wherever it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from serving.engine.torch import decoder_stack
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.program import Program
from serving.engine.torch.decoder_stack import FusedDecoderStack, stack_decoder_layers
from serving.engine.torch.int8_rounding import round_linear_layers
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from tests.serving.engine.torch.architectures import prompts, tiny_model

SLOTS = 6


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each program that runs."""
    rows: list[int] = []
    run = Program.run

    def noted(program: Program, count: int) -> None:
        rows.append(count)
        run(program, count)

    monkeypatch.setattr(Program, "run", noted)
    return rows


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def prepared(name: str = "llama", *, dtype: torch.dtype = torch.float32, int8: bool = False) -> Any:
    model = tiny_model(name).to(dtype)
    if int8:
        round_linear_layers(model)
    prepare_model(model)
    return model


def filled(model: Any, slots: int = SLOTS) -> TorchRunner:
    runner = TorchRunner(model, slots, 128)
    for row, ids in enumerate(prompts(slots, longest=60)):
        runner.prefill(row, ids, 0)
    return runner


def without_program(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, FusedDecoderStack):
            monkeypatch.setattr(module, "_step", lambda *_: None)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
@torch.inference_mode()
def test_a_step_gives_what_the_layers_give_one_by_one(
    name: str, dtype: torch.dtype, int8: bool, programs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(kernel(one, dtype) is None for one in ("linear", "rotary", "row")):
        pytest.skip("this machine has no kernels for them")
    if int8 and kernel("int8_linear", dtype) is None:
        pytest.skip("this machine has no kernels for them")
    whole, by_layer = (prepared(name, dtype=dtype, int8=int8) for _ in range(2))
    without_program(by_layer, monkeypatch)
    runners = [filled(whole), filled(by_layer)]
    lengths = [len(ids) for ids in prompts(SLOTS, longest=60)]
    for step, rows in enumerate((1, 6, 3, 4, 1, 2, 6)):
        positions = [length + step for length in lengths[:rows]]
        found, expected = (runner.decode([7 + step] * rows, positions) for runner in runners)
        assert torch.equal(found, expected)
    for one, other in zip(runners[0].cache.layers, runners[1].cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    assert programs == [1, 6, 3, 4, 1, 2, 6]


@torch.inference_mode()
def test_caches_and_teams_have_programs_of_their_own(programs: list[int]) -> None:
    model = prepared()
    one, other = filled(model), filled(model, slots=3)
    position = len(prompts(1, longest=60)[0])
    first = one.decode([5], [position])
    assert torch.equal(other.decode([5], [position]), first)
    torch.set_num_threads(1)
    torch.testing.assert_close(one.decode([5], [position]), first, atol=1e-5, rtol=1e-5)
    torch.set_num_threads(2)
    assert torch.equal(one.decode([5], [position]), first)
    assert programs == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["mistral with a window", "qwen3", "gemma3_text"])
@torch.inference_mode()
def test_models_without_one_decode_all_the_same(name: str, programs: list[int]) -> None:
    runner = filled(prepared(name))
    lengths = [len(ids) for ids in prompts(SLOTS, longest=60)]
    assert runner.decode([7] * SLOTS, lengths).isfinite().all()
    assert not programs


@torch.inference_mode()
def test_a_machine_without_kernels_goes_layer_by_layer(
    programs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_stack, "kernel", lambda *_: None)
    runner = filled(prepared())
    assert runner.decode([7], [len(prompts(1, longest=60)[0])]).isfinite().all()
    assert not programs


def test_layers_with_masks_of_their_own_are_not_made_one() -> None:
    model = prepared()
    assert [type(layer) for layer in model.model.layers] == [FusedDecoderStack]
    mixed = tiny_model()
    mixed.config.layer_types = ["sliding_attention", "full_attention"]
    prepare_model(mixed)
    assert len(mixed.model.layers) == 2
    plain = tiny_model()
    assert not stack_decoder_layers(plain)
    assert not any(isinstance(module, FusedDecoderStack) for module in plain.modules())
    assert isinstance(plain.model.layers, nn.ModuleList)
