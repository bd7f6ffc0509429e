"""A decode step of all layers as one program: the numbers of the layers one by one, wherever it is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoints.loading import load_model
from checkpoints.quantize import QuantizeConfig, quantize
from serving.engine.torch import decoder_stack
from serving.engine.torch.compiled.kernels import kernel
from serving.engine.torch.compiled.program import Program
from serving.engine.torch.decoder_stack import FusedDecoderStack, stack_decoder_layers
from serving.engine.torch.int8_rounding import round_linear_layers
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from serving.engine.torch.support import IN_ONE_PROGRAM
from tests.serving.endpoint import sealed_llama
from tests.serving.engine.torch.architectures import ARCHITECTURES, prompts, tiny_model
from tests.tiny_models import build_tiny_tokenizer

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
        round_linear_layers(model, dtype)
    prepare_model(model)
    return model


def filled(model: Any, slots: int = SLOTS) -> TorchRunner:
    runner = TorchRunner(model, slots, 128)
    for row, ids in enumerate(prompts(slots, longest=60)):
        runner.prefill(row, ids, 0)
    return runner


def need_kernels(dtype: torch.dtype, *more: str) -> None:
    if any(kernel(name, dtype) is None for name in ("linear.float", "rotary", "row", *more)):
        pytest.skip("this machine has no kernels for them")


def without_program(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, FusedDecoderStack):
            monkeypatch.setattr(module, "_step", lambda *_: None)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2"])
@torch.inference_mode()
def test_a_step_gives_what_the_layers_give_one_by_one(
    name: str, dtype: torch.dtype, int8: bool, programs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_kernels(dtype, *(["linear.int8"] if int8 else []))
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
    need_kernels(torch.float32)
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


@torch.inference_mode()
def test_more_rows_than_weights_are_read_for_at_once(programs: list[int]) -> None:
    need_kernels(torch.float32)
    slots = 135
    runner, plain = (TorchRunner(model, slots, 128) for model in (prepared(), tiny_model()))
    rows = list(range(slots))
    found, expected = (
        one.decode([3 + row for row in rows], [0] * slots) for one in (filled_with_one(runner), plain)
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert programs == [slots]


def filled_with_one(runner: TorchRunner) -> TorchRunner:
    runner.prefill(0, [5], 0)  # the cache is made
    return runner


@torch.inference_mode()
def test_a_row_that_overflowed_leaves_the_others_alone(programs: list[int]) -> None:
    need_kernels(torch.float32)
    runner = filled(prepared())
    lengths = [len(ids) for ids in prompts(SLOTS, longest=60)]
    expected = runner.decode([7] * SLOTS, lengths).clone()
    for layer in runner.cache.layers:
        layer.keys[2, :, 0] = torch.nan
    found = runner.decode([7] * SLOTS, lengths)
    whole = [row for row in range(SLOTS) if row != 2]
    assert torch.equal(found[whole], expected[whole])
    assert found[2].isnan().all()
    assert programs == [SLOTS, SLOTS]


@torch.inference_mode()
def test_nf4_steps_are_programs_too(tmp_path: Path, programs: list[int]) -> None:
    need_kernels(torch.bfloat16, "linear.nf4")
    source = sealed_llama(tmp_path / "source", build_tiny_tokenizer(), dtype=torch.bfloat16)
    packed = quantize(QuantizeConfig(source, tmp_path / "packed", fidelity=False))
    plain, fast = (load_model(packed, dtype="bf16", device="cpu") for _ in range(2))
    prepare_model(fast)
    runners = [filled(model, slots=3) for model in (plain, fast)]
    lengths = [len(ids) for ids in prompts(3, longest=60)]
    one, other = (runner.decode([7, 8, 9], lengths) for runner in runners)
    assert (one - other).norm() < 0.02 * one.norm()
    assert programs == [3]


@pytest.mark.parametrize("name", ["mistral with a window", "qwen3", "gemma3_text"])
@torch.inference_mode()
def test_models_without_one_decode_all_the_same(name: str, programs: list[int]) -> None:
    lengths = [len(ids) for ids in prompts(SLOTS, longest=60)]
    found, expected = (
        filled(model).decode([7] * SLOTS, lengths) for model in (prepared(name), tiny_model(name))
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not programs


@torch.inference_mode()
def test_a_machine_without_kernels_goes_layer_by_layer(
    programs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_stack, "kernel", lambda *_: None)
    lengths = [len(ids) for ids in prompts(SLOTS, longest=60)]
    found, expected = (filled(model).decode([7] * SLOTS, lengths) for model in (prepared(), tiny_model()))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
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
    assert isinstance(plain.model.layers, nn.ModuleList)
    assert not any(isinstance(module, FusedDecoderStack) for module in plain.modules())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_models_that_are_said_to_have_programs_are_stacked(name: str) -> None:
    model = prepared(name)
    stacked = any(isinstance(module, FusedDecoderStack) for module in model.modules())
    kinds = set(getattr(model.config, "layer_types", None) or ["all"])
    assert stacked == (model.config.model_type in IN_ONE_PROGRAM and len(kinds) == 1)
