"""QLoRA: LoRA on an NF4 base, on a tiny model whose dimensions NF4 can pack (multiples of 64)."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from transformers import TrainerCallback

from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.base import load_trainable_base
from training.metrics import read_metrics
from training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


@pytest.mark.parametrize(("double", "dtype"), [(False, "bf16"), (True, "bf16"), (False, "fp32")])
def test_an_nf4_base_trains_through_evaluations(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, double: bool, dtype: str
) -> None:
    """An evaluation must not stop the gradient (bitsandbytes repacks in ``eval()`` on a CPU)."""
    config = tiny_config(
        tiny_llama_dir,
        data,
        tmp_path / "run",
        method="qlora",
        double_quantization=double,
        dtype=dtype,
        eval_steps=1,
        rows={"eval_fraction": 0.25},
    )
    adapter = train(config)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["eval_loss"] < rows[0]["eval_loss"]
    manifest = read_manifest(adapter, verify=True)
    assert manifest.settings["base_quantization"] == "nf4"
    assert manifest.settings["double_quantization"] is double
    # B starts at 0: a layer with no gradient since the first evaluation would hold one step, 1e-2 at most
    weights = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in weights.items():
        if "lora_B" in name:
            assert tensor.abs().max() > 1.5e-2, name


def test_the_base_is_packed_and_its_norms_are_fp32(tiny_llama_dir: Path) -> None:
    model = load_trainable_base(str(tiny_llama_dir), dtype="bf16", device="cpu", quantization="nf4")
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 14
    assert {layer.compute_dtype for layer in layers} == {torch.bfloat16}
    assert model.model.norm.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_evaluation_does_not_repack_the_weights(
    tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the CPU has AVX512-BF16, bitsandbytes would: so every machine says here that it has."""
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    model = load_trainable_base(str(tiny_llama_dir), dtype="bf16", device="cpu", quantization="nf4")
    layer = next(module for module in model.modules() if isinstance(module, Linear4bit))
    before = layer.weight.data.clone()
    with torch.no_grad():
        model.eval()(input_ids=torch.tensor([[5, 6, 7]]))
    assert torch.equal(layer.weight.data, before)


def test_an_nf4_directory_is_an_nf4_base(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    packed = tmp_path / "nf4"
    load_model(tiny_llama_dir, quantization="nf4", device="cpu").save_pretrained(packed)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (packed / name).write_bytes((tiny_llama_dir / name).read_bytes())
    adapter = train(tiny_config(packed, data, tmp_path / "run", dtype="bf16"))
    assert read_manifest(adapter).settings["base_quantization"] == "nf4"
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_resumed_nf4_run_goes_on(
    tiny_llama_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.run as run

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_save(self, *args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

    build = run.build_trainer

    def build_and_stop(*args: object, **kwargs: object) -> object:
        trainer = build(*args, **kwargs)  # type: ignore[arg-type]
        trainer.add_callback(Stop())
        return trainer

    config = tiny_config(tiny_llama_dir, data, tmp_path / "run", method="qlora", dtype="bf16", save_steps=4)
    monkeypatch.setattr(run, "build_trainer", build_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    train(config)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[-1]["loss"] < rows[3]["loss"] < rows[0]["loss"]
