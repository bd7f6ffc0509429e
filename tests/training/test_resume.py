"""A run that is killed goes on where its last saved state stands, as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from checkpoints.errors import ConfigError
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.callbacks.state_rotation import StateRotation
from training.metrics import read_metrics
from training.run import train

STEPS = 14
ROOT = Path(__file__).parents[2]

# The child trains the same run: for SIGKILL, until half of the optimizer's states of step 9 are on the disk;
# for SIGTERM, slowly enough to get it after step 8, or else within the evaluation of that step.
CHILD = """
import io, os, signal, sys, time
from pathlib import Path
import torch
from transformers import TrainerCallback
import training.run as run
from tests.training.rows import tiny_config

seen = Path(sys.argv[3] + ".evaluating")
class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(float(sys.argv[4]) if state.global_step == 8 and not evaluating else 0)

    def on_prediction_step(self, args, state, control, **kwargs):
        if state.global_step == 8 and evaluating and not seen.exists():
            seen.touch()
            time.sleep(float(sys.argv[4]))

save = torch.save
def cut(value, path):
    if sys.argv[6] == "SIGKILL" and str(path).endswith("checkpoint-9/optimizer.pt"):
        whole = io.BytesIO()
        save(value, whole)
        Path(path).write_bytes(whole.getvalue()[:len(whole.getvalue()) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    save(value, path)
torch.save = cut
evaluating = len(sys.argv) > 7
build = run.build_trainer
def slow(*args, **kwargs):
    trainer = build(*args, **kwargs)
    trainer.add_callback(Slow())
    return trainer
run.build_trainer = slow
model, data, output = map(Path, sys.argv[1:4])
rows = {"eval_fraction": 0.6 if evaluating else 0.25}
settings = dict(max_steps=14, save_steps=int(sys.argv[5]), eval_steps=4, rows=rows)
run.train(tiny_config(model, data, output, **settings))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(20))


def config_of(model: Path, data: Path, output: Path, **overrides: object):  # type: ignore[no-untyped-def]
    settings = {"max_steps": STEPS, "save_steps": 3, "eval_steps": 4, "rows": {"eval_fraction": 0.25}}
    return tiny_config(model, data, output, **{**settings, **overrides})


@pytest.fixture(scope="module")
def killed(tiny_llama_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose process was killed while it saved step 9; the last state is of step 6."""
    output = tmp_path_factory.mktemp("killed") / "run"
    code, said = end_child((tiny_llama_dir, data, output), signal.SIGKILL, seconds=0, save_steps=3)
    assert code == -signal.SIGKILL, said
    return output


def end_child(
    paths: tuple[Path, Path, Path],
    number: signal.Signals,
    *,
    seconds: float,
    save_steps: int,
    evaluating: bool = False,
) -> tuple[int, str]:
    """Train in a child that waits after step 8, send it SIGTERM then, or let it be killed while it saves.

    Args:
        evaluating: whether it waits, and gets SIGTERM, after the first batch of the evaluation of step 8.

    Returns:
        Its exit code and stderr.
    """
    output = paths[2]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    settings = [*map(str, paths), str(seconds), str(save_steps), number.name, *["evaluating"] * evaluating]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *settings],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        metrics, seen = output / "metrics.jsonl", Path(f"{output}.evaluating")

        def ready() -> bool:
            if evaluating:
                return seen.exists()
            return metrics.exists() and metrics.read_text().count("\n") >= 7

        while number is signal.SIGTERM and not ready():
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < deadline, "the child did not get to step 7"
            time.sleep(0.05)
        if number is signal.SIGTERM:
            child.send_signal(number)
        _, said = child.communicate(timeout=120)
    finally:
        child.kill()
        child.communicate()
    return child.returncode, said


def test_a_killed_run_continues_without_gap_or_duplicate(
    killed: Path, tiny_llama_dir: Path, data: Path, tmp_path: Path
) -> None:
    assert not (killed / "adapter").exists()
    states = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert states == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    assert not zipfile.is_zipfile(killed / "checkpoints" / "checkpoint-9" / "optimizer.pt")
    assert len(read_metrics(killed / "metrics.jsonl")) == 9
    # what a kill in the middle of a row leaves
    with (killed / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 10, "lo')
    before = read_metrics_until(killed, 6)

    adapter = train(config_of(tiny_llama_dir, data, killed, threads=1))

    rows = read_metrics(killed / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[:6] == before, "the steps before the state were trained again"
    assert [row["step"] for row in rows if "eval_loss" in row] == [4, 8, 12, 14]

    straight = train(config_of(tiny_llama_dir, data, tmp_path / "straight"))
    expected = read_metrics(tmp_path / "straight" / "metrics.jsonl")
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    one, other = (load_file(path / "adapter_model.safetensors") for path in (adapter, straight))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_sigterm_saves_the_state_and_nothing_is_lost(
    tiny_llama_dir: Path, data: Path, tmp_path: Path
) -> None:
    """As when a spot machine is taken back: no saved state was due, yet no step is trained twice."""
    cut, straight = tmp_path / "cut", tmp_path / "straight"
    code, said = end_child((tiny_llama_dir, data, cut), signal.SIGTERM, seconds=2, save_steps=100)
    assert code == 143, said
    assert "Traceback" not in said
    (state,) = (cut / "checkpoints").iterdir()
    step = int(state.name.rpartition("-")[2])
    assert 8 <= step < STEPS
    assert not (cut / "adapter").exists()

    config = config_of(tiny_llama_dir, data, cut, save_steps=100)
    adapter = train(config)
    other = train(config_of(tiny_llama_dir, data, straight, save_steps=100))
    rows, expected = (read_metrics(run / "metrics.jsonl") for run in (cut, straight))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    one, two = (load_file(path / "adapter_model.safetensors") for path in (adapter, other))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_sigterm_in_an_evaluation_does_not_wait_for_its_end(
    tiny_llama_dir: Path, data: Path, tmp_path: Path
) -> None:
    """It may take longer than the grace period; the run that goes on makes up for it."""
    cut, straight = tmp_path / "cut", tmp_path / "straight"
    paths = (tiny_llama_dir, data, cut)
    code, said = end_child(paths, signal.SIGTERM, seconds=2, save_steps=100, evaluating=True)
    assert code == 143, said
    assert "Traceback" not in said
    assert [state.name for state in (cut / "checkpoints").iterdir()] == ["checkpoint-8"]
    assert [row["step"] for row in read_metrics(cut / "metrics.jsonl")] == list(range(1, 8))

    adapter, other = (
        train(config_of(tiny_llama_dir, data, run, save_steps=100, rows={"eval_fraction": 0.6}))
        for run in (cut, straight)
    )
    rows, expected = (read_metrics(run / "metrics.jsonl") for run in (cut, straight))
    for key in ("step", "loss", "eval_loss"):
        assert [row.get(key) for row in rows] == [row.get(key) for row in expected]
    one, two = (load_file(path / "adapter_model.safetensors") for path in (adapter, other))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def read_metrics_until(run: Path, step: int) -> list[dict[str, float]]:
    import json

    lines = (run / "metrics.jsonl").read_text().splitlines()[:step]
    return [json.loads(line) for line in lines]


@pytest.fixture
def cut_off(tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that got its states but not its adapter."""
    import training.run as run

    def refuse(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_adapter", refuse)
    with pytest.raises(KeyboardInterrupt):
        train(config_of(tiny_llama_dir, data, tmp_path / "run", max_steps=4, save_steps=2))
    monkeypatch.undo()
    return tmp_path / "run"


def test_a_run_with_another_setting_is_not_continued(cut_off: Path, tiny_llama_dir: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"learning_rate was 0.01, now it is 0.001.*resume = never"):
        train(config_of(tiny_llama_dir, data, cut_off, max_steps=4, learning_rate=1e-3))


def test_a_resume_that_is_refused_leaves_the_encoded_rows(
    cut_off: Path, tiny_llama_dir: Path, data: Path
) -> None:
    stores = sorted(path.name for path in (cut_off / "tokens").glob("training-*"))
    assert stores
    config = config_of(tiny_llama_dir, data, cut_off, max_steps=4)
    config.data.max_length = 7
    with pytest.raises(ConfigError, match=r"data.max_length was .*, now it is 7"):
        train(config)
    assert sorted(path.name for path in (cut_off / "tokens").glob("training-*")) == stores


def test_a_run_with_other_rows_is_not_continued(cut_off: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", chat_rows(24))
    with pytest.raises(ConfigError, match=r"data was .*, now it is "):
        train(config_of(tiny_llama_dir, other, cut_off, max_steps=4))


def test_rows_are_encoded_once(
    cut_off: Path, tiny_llama_dir: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding the rows of a large set takes hours; the store goes when the run is finished."""

    def refuse(*args: object) -> None:
        raise AssertionError("a row was encoded again")

    monkeypatch.setattr("training.data.encoding.RowEncoder.encode", refuse)
    assert list((cut_off / "tokens").glob("training-*/store.json"))
    train(config_of(tiny_llama_dir, data, cut_off, max_steps=4, save_steps=2))
    assert not (cut_off / "tokens").exists()


def test_resume_never_starts_over(cut_off: Path, tiny_llama_dir: Path, data: Path) -> None:
    config = config_of(tiny_llama_dir, data, cut_off, max_steps=2, learning_rate=1e-3, resume="never")
    train(config)
    assert [row["step"] for row in read_metrics(cut_off / "metrics.jsonl")] == [1, 2]


def test_a_run_cut_off_at_its_very_end_only_writes_the_adapter(
    cut_off: Path, tiny_llama_dir: Path, data: Path
) -> None:
    before = (cut_off / "metrics.jsonl").read_text()
    adapter = train(config_of(tiny_llama_dir, data, cut_off, max_steps=4, save_steps=2))
    assert (adapter / "trimaran.json").exists()
    assert (cut_off / "metrics.jsonl").read_text() == before


def test_a_resumed_run_goes_by_the_steps_it_is_given_now(
    cut_off: Path, tiny_llama_dir: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an eviction one wants to save more often."""
    shutil.rmtree(cut_off / "checkpoints" / "checkpoint-4")
    saved = []
    monkeypatch.setattr(
        StateRotation, "on_save", lambda self, args, state, *_, **__: saved.append(state.global_step)
    )
    train(config_of(tiny_llama_dir, data, cut_off, max_steps=4, save_steps=1, eval_steps=1, log_steps=2))
    assert saved == [3, 4]
    rows = read_metrics(cut_off / "metrics.jsonl")
    assert [row["step"] for row in rows if "eval_loss" in row] == [3, 4]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 4]
