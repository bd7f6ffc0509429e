"""Full fine-tuning: every weight moves, and the result is a checkpoint that later stages take as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, TrainerCallback

from checkpoints.errors import CheckpointError, ConfigError
from checkpoints.loading import load_model
from checkpoints.manifest import manifest_sha256, read_manifest
from checkpoints.quantize import QuantizeConfig, quantize
from serving.config import ExportConfig
from serving.export import export
from tests.tiny_models import build_tiny_tokenizer
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import MergeConfig, TrainConfig
from training.merge import merge
from training.methods.full.config import FullSettings
from training.metrics import read_metrics
from training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


def config_of(model: Path, data: Path, output: Path, **overrides: object) -> TrainConfig:
    return tiny_config(model, data, output, **{"method": "full", "learning_rate": 3e-3, **overrides})


@pytest.fixture(scope="module")
def checkpoint(tiny_llama_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("full") / "run"
    result = train(config_of(tiny_llama_dir, data, output, rows={"eval_fraction": 0.25}))
    assert result == output / "checkpoint"
    return result


def test_every_weight_moves_and_the_loss_falls(checkpoint: Path, tiny_llama_dir: Path) -> None:
    rows = read_metrics(checkpoint.parent / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    before, after = (load_file(path / "model.safetensors") for path in (tiny_llama_dir, checkpoint))
    assert before.keys() == after.keys()
    assert not [name for name, tensor in before.items() if torch.equal(tensor, after[name])]


def test_it_is_sealed_like_a_merged_checkpoint(checkpoint: Path, tiny_llama_dir: Path) -> None:
    manifest = read_manifest(checkpoint, verify=True)
    assert (manifest.kind, manifest.method, manifest.dtype) == ("merged", "full", "fp32")
    assert manifest.settings["full"] == {"weights": "fp32"}
    assert "lora" not in manifest.settings
    assert manifest.base.source == str(tiny_llama_dir.resolve())
    assert manifest.metrics["final_loss"] > 0
    assert manifest.metrics["eval_loss"] > 0
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    assert config.get("use_cache", True) is True
    plain = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto")
    assert manifest.parameters == plain.num_parameters()


def test_quantize_and_export_take_it(checkpoint: Path, tmp_path: Path) -> None:
    packed = quantize(QuantizeConfig(checkpoint=checkpoint, output=tmp_path / "nf4"))
    manifest = read_manifest(packed)
    assert (manifest.method, manifest.metrics["fidelity"]["adapter_retention"] is not None) == ("full", True)
    version = export(ExportConfig(checkpoint, tmp_path / "models", engine="torch"))
    assert manifest_sha256(version / "checkpoint") == manifest_sha256(checkpoint)


def test_there_is_nothing_to_merge(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"whole already \(method full\), so there is nothing to merge"):
        merge(MergeConfig(adapter=checkpoint, output=tmp_path / "merged"))


def test_a_quantized_base_is_refused_by_name(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"base_quantization = nf4 and method = full clash.*qlora"):
        config_of(tiny_llama_dir, data, tmp_path / "run", base_quantization="nf4")
    packed = tmp_path / "nf4"
    load_model(tiny_llama_dir, quantization="nf4", device="cpu").save_pretrained(packed)
    with pytest.raises(ConfigError, match=r"model = .*nf4 is NF4 and method = full: they clash"):
        train(config_of(packed, data, tmp_path / "run"))


@pytest.mark.parametrize(("weights", "learning_rate"), [("fp32", 3e-3), ("bf16", 3e-3)])
def test_bf16_computation_with_weights_in_either_precision(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, weights: str, learning_rate: float
) -> None:
    result = train(
        config_of(
            tiny_llama_dir, data, tmp_path / "run", dtype="bf16", save_steps=8, learning_rate=learning_rate,
            full=FullSettings(weights=weights),  # type: ignore[arg-type]
        )
    )  # fmt: skip
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert read_manifest(result).dtype == "bf16"
    state = load_file(tmp_path / "run" / "checkpoints" / "checkpoint-8" / "model.safetensors")
    wanted = torch.float32 if weights == "fp32" else torch.bfloat16
    assert {tensor.dtype for tensor in state.values()} == {wanted}


def test_bf16_weights_compute_in_bf16() -> None:
    with pytest.raises(ConfigError, match=r"full.weights = bf16 and dtype = fp32 clash"):
        config_of(Path("m"), Path("d"), Path("o"), full=FullSettings(weights="bf16"), dtype="fp32")


class Cut(TrainerCallback):  # type: ignore[misc]
    """Ends the process's run after the state of step 3 is written; what a kill leaves, without the wait."""

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.global_step == 4:  # type: ignore[attr-defined]
            raise KeyboardInterrupt


def cut_and_resume(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    import training.run as run

    build = run.build_trainer

    def build_and_cut(*args: object, **kwargs: object) -> object:
        trainer = build(*args, **kwargs)  # type: ignore[arg-type]
        trainer.add_callback(Cut())
        return trainer

    monkeypatch.setattr(run, "build_trainer", build_and_cut)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    assert not (config.output / "checkpoint").exists()
    return train(config)


def test_a_run_that_was_cut_continues_as_if_it_had_not(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = cut_and_resume(config_of(tiny_llama_dir, data, tmp_path / "cut", save_steps=3), monkeypatch)
    straight = train(config_of(tiny_llama_dir, data, tmp_path / "straight"))
    for name in ("cut", "straight"):
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, 9))
    one, other = (load_file(path / "model.safetensors") for path in (resumed, straight))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-4, rtol=1e-3)


def test_experts_stored_under_other_names_are_resumed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixtral's experts are one tensor in the model and many in its files."""
    tokenizer = build_tiny_tokenizer()
    settings = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
        max_position_embeddings=256, initializer_range=0.2, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    base = tmp_path / "base"
    MixtralForCausalLM(settings).save_pretrained(base)
    tokenizer.save_pretrained(base)
    assert [name for name in load_file(base / "model.safetensors") if ".experts.3." in name]
    resumed = cut_and_resume(config_of(base, data, tmp_path / "cut", save_steps=3), monkeypatch)
    straight = train(config_of(base, data, tmp_path / "straight"))
    one, other = (load_file(path / "model.safetensors") for path in (resumed, straight))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-3, rtol=1e-2)


def test_a_result_of_another_method_is_a_finished_run(
    checkpoint: Path, tiny_llama_dir: Path, data: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint exists already: this run is finished"):
        train(tiny_config(tiny_llama_dir, data, checkpoint.parent))


def test_each_method_has_a_learning_rate_of_its_own() -> None:
    rates = {
        method: config_of(Path("m"), Path("d"), Path("o"), method=method, learning_rate=None).learning_rate
        for method in ("lora", "qlora", "bottleneck", "full")
    }
    assert rates == {"lora": 2e-4, "qlora": 2e-4, "bottleneck": 3e-4, "full": 1e-5}
