"""A run that SIGTERM ended and that was started again gives the losses of one that was not, bit for bit."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import training.run as run
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.callbacks.preemption import Preemption
from training.data.config import SamplingSettings
from training.methods.lora.config import LoraSettings
from training.metrics import read_metrics
from training.resume import RunDirectory

CASES: dict[str, dict[str, Any]] = {
    "dropout and accumulation": {"gradient_accumulation": 2, "batch_size": 2},
    "packing, balanced": {
        "rows": {"packing": True, "sampling": SamplingSettings(by="topic")},
        "batch_size": 1,
    },
}


class Evict(TrainerCallback):
    """Sends SIGTERM while step 5 is trained."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{**row, "topic": "rare" if number < 3 else "common"} for number, row in enumerate(chat_rows(14))]
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", rows)


@pytest.mark.parametrize("case", CASES)
def test_an_evicted_run_is_the_run_that_was_not(
    case: str, tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> Any:
        settings = {"max_steps": 9, "lora": LoraSettings(rank=8, alpha=16, dropout=0.2), **CASES[case]}
        return tiny_config(tiny_llama_dir, data, tmp_path / name, **settings)

    straight = run.train(config("straight"))
    build = run.build_trainer

    def evicted(*args: Any, **kwargs: Any) -> Any:
        return build(*args, **{**kwargs, "callbacks": [Evict(), *kwargs["callbacks"]]})

    monkeypatch.setattr(run, "build_trainer", evicted)
    with pytest.raises(SystemExit, match="143"):
        run.train(config("cut"))
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["checkpoint-5"]
    resumed = run.train(config("cut"))

    losses = [
        [row["loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("straight", "cut")
    ]
    assert len(losses[0]) == 9
    assert losses[0] == losses[1]
    one, other = (load_file(path / "adapter_model.safetensors") for path in (straight, resumed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class EvictEvaluation(TrainerCallback):
    """Sends SIGTERM in the evaluations that start at the given steps, once in each."""

    def __init__(self, *steps: int) -> None:
        self._steps = [*steps]

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self._steps:
            self._steps.remove(state.global_step)
            os.kill(os.getpid(), signal.SIGTERM)


def test_evaluations_that_were_given_up_are_made_up_for(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a run, once more where that run goes on, and after its last step."""

    def config(name: str) -> Any:
        settings = {"max_steps": 7, "lora": LoraSettings(rank=8, alpha=16, dropout=0.2), "eval_steps": 3}
        return tiny_config(
            tiny_llama_dir, data, tmp_path / name, rows={"eval_fraction": 0.4}, batch_size=2, **settings
        )

    straight = run.train(config("straight"))
    build = run.build_trainer
    for step in (3, 3, 7):
        evict = EvictEvaluation(step)

        def evicted(*args: Any, evict: Any = evict, **kwargs: Any) -> Any:
            return build(*args, **{**kwargs, "callbacks": [evict, *kwargs["callbacks"]]})

        monkeypatch.setattr(run, "build_trainer", evicted)
        with pytest.raises(SystemExit, match="143"):
            run.train(config("cut"))
        monkeypatch.undo()
        assert (tmp_path / "cut" / "checkpoints" / f"checkpoint-{step}").exists()
        rows = read_metrics(tmp_path / "cut" / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, step))
    resumed = run.train(config("cut"))

    rows, expected = (
        [{key: row.get(key) for key in ("step", "loss", "eval_loss")} for row in read_metrics(path)]
        for path in (tmp_path / "cut" / "metrics.jsonl", tmp_path / "straight" / "metrics.jsonl")
    )
    assert rows == expected
    assert [row["step"] for row in rows if row["eval_loss"] is not None] == [3, 6, 7]
    one, other = (load_file(path / "adapter_model.safetensors") for path in (straight, resumed))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_signal_may_come_within_a_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's streams raise where a signal handler writes in the middle of a write."""

    def reenter(*args: object) -> None:
        raise RuntimeError("reentrant call inside BufferedWriter")

    preemption = Preemption()
    monkeypatch.setattr(logging.Logger, "handle", reenter)
    with preemption.listening():
        os.kill(os.getpid(), signal.SIGTERM)
    assert preemption._asked.is_set()


def test_a_state_cut_off_in_any_of_its_files_is_passed_over(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_adapter", stop)
    with pytest.raises(KeyboardInterrupt):
        run.train(tiny_config(tiny_llama_dir, data, tmp_path / "run", max_steps=4, save_steps=2))
    directory = RunDirectory(tmp_path / "run")
    last = directory.checkpoints / "checkpoint-4"
    files = {path.name: path.read_bytes() for path in last.iterdir()}
    needed = [
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    ]
    assert directory._last_complete_state() == last
    for name in needed:
        for kept in (len(files[name]) // 2, None):
            last.mkdir(exist_ok=True)
            for other, content in files.items():
                (last / other).write_bytes(content)
            if kept is None:
                (last / name).unlink()
            else:
                (last / name).write_bytes(files[name][:kept])
            assert directory._last_complete_state() == directory.checkpoints / "checkpoint-2", (name, kept)
            assert not last.exists()
