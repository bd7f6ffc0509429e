"""fp16 with a scaled loss: the curve of fp32, steps that overflow skipped, the scale saved and resumed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import training.loss_scaling as scaling
import training.run as run
from checkpoints.errors import ConfigError
from checkpoints.manifest import read_manifest
from tests.tiny_mixtures import save_tiny_mixture
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from tests.training.test_guard import POISON, poisoned
from training.ewc.config import EwcSettings
from training.methods.full.config import FullSettings
from training.metrics import read_metrics
from training.moe.config import MoeSettings
from training.resume import RunDirectory

STEPS = 8
CURVE = 1e-2
"""Relative, of each step's loss: fp16 rounds to 11 bits, and the steps before add up."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(12))


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(output / "metrics.jsonl")]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_curve_is_that_of_fp32(method: str, tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "method": method,
        "max_steps": STEPS,
        "gradient_accumulation": 2,
        "batch_size": 2,
        "learning_rate": 1e-2 if method == "lora" else 1e-3,
    }
    for dtype in ("fp32", "fp16"):
        result = run.train(tiny_config(tiny_llama_dir, data, tmp_path / dtype, dtype=dtype, **settings))
    expected, found = losses(tmp_path / "fp32"), losses(tmp_path / "fp16")
    assert expected[-1] < 0.9 * expected[0]
    assert found == pytest.approx(expected, rel=CURVE)
    assert found != pytest.approx(expected, rel=1e-6)  # or it was fp32 after all
    if method == "full":
        assert read_manifest(result).dtype == "fp16"


CASES: dict[str, dict[str, Any]] = {
    "qlora, checkpointing": {"method": "qlora", "gradient_checkpointing": True},
    "full, checkpointing": {"method": "full", "learning_rate": 1e-3, "gradient_checkpointing": True},
    "mixture, lora": {"moe": MoeSettings(load_balance_coefficient=0.01)},
    "mixture, full": {"method": "full", "learning_rate": 1e-3},
}


@pytest.mark.parametrize("case", CASES)
def test_the_curve_is_that_of_fp32_on_other_bases_and_with_recomputed_activations(
    case: str, tiny_llama_dir: Path, data: Path, tmp_path: Path
) -> None:
    base = save_tiny_mixture(tmp_path / "base", "deepseek") if "mixture" in case else tiny_llama_dir
    settings = {"max_steps": STEPS, "batch_size": 6, **CASES[case]}
    for dtype in ("fp32", "fp16"):
        run.train(tiny_config(base, data, tmp_path / dtype, dtype=dtype, **settings))
    expected, found = losses(tmp_path / "fp32"), losses(tmp_path / "fp16")
    assert expected[-1] < 0.95 * expected[0]
    assert found == pytest.approx(expected, rel=CURVE)
    assert found != pytest.approx(expected, rel=1e-6)


def test_steps_that_overflow_are_skipped(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_FIRST_SCALE", 2.0**36)
    run.train(tiny_config(tiny_llama_dir, data, tmp_path / "run", dtype="fp16", max_steps=24, batch_size=12))
    found = losses(tmp_path / "run")
    assert found[1:3] == pytest.approx([found[0]] * 2, rel=1e-4), "a step was taken with infinite gradients"
    assert found[-1] < 0.9 * found[0]


def test_gradients_that_overflow_at_any_scale_end_the_run(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_FIRST_SCALE", 4.0)
    build = run.build_trainer

    def exploding(config: Any, model: Any, **kwargs: Any) -> Any:
        parameter = next(one for one in model.parameters() if one.requires_grad)
        parameter.register_hook(lambda gradient: gradient * float("inf"))
        return build(config, model, **kwargs)

    monkeypatch.setattr(run, "build_trainer", exploding)
    with pytest.raises(ConfigError, match=r"the norm of the gradients is .* at step 3"):
        run.train(tiny_config(tiny_llama_dir, data, tmp_path / "run", dtype="fp16"))


def test_a_loss_that_is_no_number_ends_the_run_at_once(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = chat_rows(4)
    rows[2]["messages"][0]["content"] = POISON
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    monkeypatch.setattr(run, "build_trainer", poisoned(run.build_trainer))
    with pytest.raises(ConfigError, match=r"the loss is nan at step 1, .*rows\.jsonl:3"):
        run.train(tiny_config(tiny_llama_dir, data, tmp_path / "run", dtype="fp16"))


class Evict(TrainerCallback):
    """Sends SIGTERM while step 5 is trained."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_was_cut_off_goes_on_with_its_scale(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It falls in the first steps: a run that went on with the first scale would skip steps again.
    monkeypatch.setattr(scaling, "_FIRST_SCALE", 2.0**24)
    straight = run.train(tiny_config(tiny_llama_dir, data, tmp_path / "straight", dtype="fp16"))
    build = run.build_trainer
    with monkeypatch.context() as patched:
        patched.setattr(
            run, "build_trainer", lambda *a, **k: build(*a, **{**k, "callbacks": [Evict(), *k["callbacks"]]})
        )
        with pytest.raises(SystemExit, match="143"):
            run.train(tiny_config(tiny_llama_dir, data, tmp_path / "cut", dtype="fp16"))
    state = tmp_path / "cut" / "checkpoints" / "checkpoint-5"
    saved = torch.load(state / "scaler.pt", weights_only=True)
    assert saved["scale"] < 2.0**24
    resumed = run.train(tiny_config(tiny_llama_dir, data, tmp_path / "cut", dtype="fp16"))
    assert losses(tmp_path / "cut") == losses(tmp_path / "straight")
    one, other = (load_file(path / "adapter_model.safetensors") for path in (straight, resumed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    directory = RunDirectory(tmp_path / "cut")
    last = directory._last_complete_state()
    assert last is not None
    (last / "scaler.pt").unlink()
    assert directory._last_complete_state() != last


def test_what_does_not_go_with_it_is_named(tmp_path: Path) -> None:
    def config(**settings: Any) -> Any:
        return tiny_config(tmp_path, tmp_path / "rows.jsonl", tmp_path / "run", dtype="fp16", **settings)

    with pytest.raises(ConfigError, match=r"full.weights = bf16 and dtype = fp16 clash"):
        config(method="full", full=FullSettings(weights="bf16"))
    with pytest.raises(ConfigError, match=r"ewc and dtype = fp16 clash"):
        config(ewc=EwcSettings(save=True))
    with pytest.raises(ConfigError, match=r"dtype = fp16, but weight would be trained in fp16"):
        scaling.check_fp16(config(), torch.nn.Linear(2, 2).half())


def test_routers_in_fp16_are_refused_before_anything_is_loaded(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the base was loaded first")

    monkeypatch.setattr(run, "load_trainable_base", refuse)
    for router in ("trainable", "warmup"):
        config = tiny_config(
            tiny_llama_dir, data, tmp_path / "run", dtype="fp16", moe=MoeSettings(router=router)
        )
        with pytest.raises(ConfigError, match=rf"dtype = fp16 and moe\.router = {router} clash"):
            run.train(config)
        scaling.check_fp16_settings(replace(config, base_quantization="nf4"))  # its routers are in fp32
