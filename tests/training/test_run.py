"""A whole run on a tiny model: it learns, and leaves a sealed adapter and its records."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from checkpoints.errors import CheckpointError, ConfigError
from checkpoints.loading import load_model, load_tokenizer
from checkpoints.manifest import file_sha256, read_manifest
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import TrainConfig
from training.data.config import DataConfig
from training.methods.lora.config import LoraSettings
from training.metrics import read_metrics
from training.run import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


@pytest.fixture(scope="module")
def run(tiny_llama_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps with evaluation every 5."""
    output = tmp_path_factory.mktemp("run") / "run"
    config = tiny_config(
        tiny_llama_dir,
        data,
        output,
        max_steps=12,
        eval_steps=5,
        rows={"eval_fraction": 0.25},
        tensorboard=True,
    )
    assert train(config) == output / "adapter"
    return output


def test_the_loss_drops(run: Path) -> None:
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


def test_a_metrics_row_has_everything(run: Path) -> None:
    rows = read_metrics(run / "metrics.jsonl")
    for row in rows:
        assert row["grad_norm"] > 0
        assert row["tokens_per_second"] > 0
    assert [row["step"] for row in rows if "eval_loss" in row] == [5, 10, 12]
    # one warm-up step, then a cosine that ends at 0
    rates = [row["learning_rate"] for row in rows]
    assert max(rates) == pytest.approx(1e-2)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 1e-3


def test_the_records_are_there(run: Path) -> None:
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_the_adapter_is_sealed_with_its_lineage(run: Path, tiny_llama_dir: Path, data: Path) -> None:
    manifest = read_manifest(run / "adapter", verify=True)
    rows = read_metrics(run / "metrics.jsonl")
    assert (manifest.kind, manifest.method, manifest.dtype) == ("adapter", "lora", "fp32")
    assert manifest.settings["lora"]["rank"] == 8
    assert manifest.base.source == str(tiny_llama_dir.resolve())
    assert manifest.base.files == {"model.safetensors": file_sha256(tiny_llama_dir / "model.safetensors")}
    assert [(item.sha256, item.rows) for item in manifest.training_data] == [
        (hashlib.sha256(data.read_bytes()).hexdigest(), 16)
    ]
    assert manifest.metrics["final_loss"] == rows[-1]["loss"]
    assert manifest.metrics["eval_loss"] == rows[-1]["eval_loss"]
    weights = load_file(run / "adapter" / "adapter_model.safetensors")
    assert manifest.parameters == sum(tensor.numel() for tensor in weights.values())
    assert set(manifest.files) >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
    }
    assert "README.md" not in manifest.files


def test_the_adapter_loads_and_answers_better_than_its_base(run: Path, tiny_llama_dir: Path) -> None:
    tokenizer = load_tokenizer(run / "adapter")
    text = tokenizer.apply_chat_template(chat_rows(16)[3]["messages"], return_dict=False)
    ids = torch.tensor([text])
    losses = []
    for source in (tiny_llama_dir, run / "adapter"):
        with torch.no_grad():
            losses.append(load_model(source, device="cpu")(input_ids=ids, labels=ids).loss.item())
    assert losses[1] < losses[0]


def test_a_finished_run_is_not_trained_over(run: Path, tiny_llama_dir: Path, data: Path) -> None:
    before = (run / "adapter" / "trimaran.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"exists already: this run is finished.*--overwrite"):
        train(tiny_config(tiny_llama_dir, data, run))
    assert (run / "adapter" / "trimaran.json").read_bytes() == before


def test_overwrite_starts_again(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    train(tiny_config(tiny_llama_dir, data, tmp_path / "run", max_steps=3))
    train(tiny_config(tiny_llama_dir, data, tmp_path / "run", max_steps=2, seed=1, overwrite=True))
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    assert read_manifest(tmp_path / "run" / "adapter").settings["seed"] == 1


def test_other_peoples_files_are_left_alone(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"no run\.json"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", overwrite=True))


def test_gradient_accumulation_changes_nothing(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    """Rows of different length: the mean is over the tokens of the step, not over its batches."""
    whole = train(tiny_config(tiny_llama_dir, data, tmp_path / "a", max_steps=4, batch_size=8))
    split = train(
        tiny_config(tiny_llama_dir, data, tmp_path / "b", max_steps=4, batch_size=2, gradient_accumulation=4)
    )
    one, other = (load_file(path / "adapter_model.safetensors") for path in (whole, split))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-4, rtol=1e-3)


def test_gradient_checkpointing_changes_nothing(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    plain = train(tiny_config(tiny_llama_dir, data, tmp_path / "a", max_steps=3))
    saving = train(
        tiny_config(tiny_llama_dir, data, tmp_path / "b", max_steps=3, gradient_checkpointing=True)
    )
    one, other = (load_file(path / "adapter_model.safetensors") for path in (plain, saving))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=1e-4)


def test_a_bf16_base_trains(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    train(tiny_config(tiny_llama_dir, data, tmp_path / "run", dtype="bf16", learning_rate=5e-3))
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_loss_that_is_no_number_stops_the_run(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in tiny_llama_dir.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"the loss is nan at step 1.*Lower learning_rate"):
        train(tiny_config(base, data, tmp_path / "run", save_steps=1))
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint-1").exists()


def test_rows_longer_than_the_context_are_refused(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.max_length = 4096 exceeds the context of .*, 256 tokens"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", rows={"max_length": 4096}))


def test_an_adapter_is_no_base(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is an adapter; merge it first"):
        train(tiny_config(run / "adapter", data, tmp_path / "run"))


def test_tensorboard_asked_for_but_not_installed(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"TensorBoard is not installed: pip install"):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "run", tensorboard=True))


def test_the_base_may_be_a_state_dict(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in tiny_llama_dir.iterdir():
        if path.suffix != ".safetensors":
            (base / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(tiny_llama_dir / "model.safetensors"), base / "model.pt")
    adapter = train(tiny_config(base / "model.pt", data, tmp_path / "run", max_steps=2, save_steps=1))
    named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert named["base_model_name_or_path"] == str((base / "model.pt").resolve())
    load_model(adapter, device="cpu")


@pytest.mark.parametrize("name", ["lora", "qlora"])
def test_a_recipe_trains_on_its_own_rows_from_the_root(
    name: str, tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    settings = yaml.safe_load(Path(f"recipes/smollm2-135m/{name}.yaml").read_text(encoding="utf-8"))
    data = DataConfig(**{**settings.pop("data"), "max_length": 128})  # the tiny model's context
    lora = LoraSettings(**settings.pop("lora"))
    settings |= {"model": str(tiny_llama_dir), "output": tmp_path / "run", "epochs": 1}
    manifest = read_manifest(train(TrainConfig(data=data, lora=lora, **settings)))
    assert manifest.settings["base_quantization"] == ("nf4" if name == "qlora" else None)
    assert [(item.path, item.rows) for item in manifest.training_data] == [
        ("recipes/smollm2-135m/example.jsonl", 24)
    ]
    assert manifest.metrics["final_loss"] > 0
    assert manifest.metrics["eval_loss"] > 0
