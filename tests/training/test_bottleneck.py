"""Bottleneck adapters through a whole run: trained, sealed, resumed, refused by ``merge`` with the remedy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from checkpoints.errors import ConfigError, UnsupportedCheckpoint
from checkpoints.inspect import InspectConfig, inspect_checkpoint
from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import MergeConfig, TrainConfig
from training.merge import merge
from training.methods.bottleneck.config import BottleneckSettings
from training.metrics import read_metrics
from training.run import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


def config_of(model: Path, data: Path, output: Path, **overrides: object) -> TrainConfig:
    settings = {"method": "bottleneck", "bottleneck": BottleneckSettings(size=16)}
    return tiny_config(model, data, output, **{**settings, **overrides})


@pytest.fixture(scope="module")
def adapter(tiny_llama_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config_of(tiny_llama_dir, data, tmp_path_factory.mktemp("run") / "run", max_steps=10))


def test_it_learns_and_is_sealed(adapter: Path, tiny_llama_dir: Path) -> None:
    rows = read_metrics(adapter.parent / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    manifest = read_manifest(adapter, verify=True)
    assert (manifest.kind, manifest.method, manifest.needs_import) == ("adapter", "bottleneck", True)
    assert manifest.settings["bottleneck"]["size"] == 16
    assert manifest.parameters == 4 * (2 * 16 * 64 + 64 + 16)
    assert "import checkpoints.bottleneck" in inspect_checkpoint(InspectConfig(adapter))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        adapted = load_model(adapter, device="cpu")(input_ids=ids).logits
        base = load_model(tiny_llama_dir, device="cpu")(input_ids=ids).logits
    assert float((adapted - base).abs().max()) > 1e-2


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_it_trains_on_an_nf4_base_through_evaluations(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, dtype: str
) -> None:
    settings = {"base_quantization": "nf4", "eval_steps": 1, "rows": {"eval_fraction": 0.25}, "dtype": dtype}
    train(config_of(tiny_llama_dir, data, tmp_path / "run", **settings))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    load_model(tmp_path / "run" / "adapter", device="cpu")


def test_gradient_checkpointing_changes_nothing(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    runs = [
        train(config_of(tiny_llama_dir, data, tmp_path / str(on), max_steps=3, gradient_checkpointing=on))
        for on in (False, True)
    ]
    one, other = (load_file(path / "adapter_model.safetensors") for path in runs)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=1e-4)


def test_merge_says_to_serve_it_unmerged(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"cannot be merged\. Serve it unmerged.*trimaran export"):
        merge(MergeConfig(adapter=adapter, output=tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 0), ("dropout", 1.0), ("activation", "tanh"), ("placement", "everywhere")],
)
def test_a_setting_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"bottleneck\.{name} = .*{value}"):
        BottleneckSettings(**{name: value})  # type: ignore[arg-type]


# Trains slowly enough after step 5 to be killed between two saved states.
CHILD = """
import sys, time
from pathlib import Path
from transformers import TrainerCallback
import training.run as run
from tests.training.test_bottleneck import config_of

class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(60 if state.global_step == 5 else 0)

build = run.build_trainer
def slow(*args, **kwargs):
    trainer = build(*args, **kwargs)
    trainer.add_callback(Slow())
    return trainer
run.build_trainer = slow
model, data, output, method = sys.argv[1:]
settings = {"learning_rate": 1e-3} if method == "full" else {}
run.train(config_of(Path(model), Path(data), Path(output), method=method, save_steps=3, **settings))
"""


@pytest.mark.parametrize("method", ["bottleneck", "full"])
def test_a_killed_run_continues(method: str, tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = [sys.executable, "-c", CHILD, str(tiny_llama_dir), str(data), str(output), method]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        metrics = output / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 4):
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < deadline, "the child did not get to step 4"
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    settings = {"method": method, **({"learning_rate": 1e-3} if method == "full" else {})}
    resumed = train(config_of(tiny_llama_dir, data, output, save_steps=3, **settings))
    rows = read_metrics(output / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    straight = train(config_of(tiny_llama_dir, data, tmp_path / "straight", **settings))
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    one, other = load_file(resumed / name), load_file(straight / name)
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, other[key], atol=1e-4, rtol=1e-3)
