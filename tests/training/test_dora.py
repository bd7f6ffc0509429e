"""DoRA trains, merges and loads like plain LoRA, on a dense and on an NF4 base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints.adapters import attach_adapter
from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import MergeConfig
from training.merge import merge
from training.methods.lora.config import LoraSettings
from training.metrics import read_metrics
from training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "rows.jsonl", chat_rows(16))


def as_trained(adapter: Path, base: Path, method: str) -> Any:
    """Base and adapter in fp32; of an NF4 base, the very values it was packed to."""
    if method == "lora":
        return load_model(adapter, dtype="fp32", device="cpu")
    packed = load_model(base, dtype="bf16", device="cpu", quantization="nf4")
    return attach_adapter(packed.dequantize(dtype=torch.float32).float(), adapter)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_dora_trains_and_merges(tiny_llama_dir: Path, data: Path, tmp_path: Path, method: str) -> None:
    settings: dict[str, Any] = {"lora": LoraSettings(rank=8, alpha=16, dora=True, rslora=True)}
    if method == "qlora":
        settings |= {"eval_steps": 2, "rows": {"eval_fraction": 0.25}, "dtype": "bf16"}
    run = tmp_path / "run"
    adapter = train(tiny_config(tiny_llama_dir, data, run, method=method, **settings))
    rows = read_metrics(run / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    weights = load_file(adapter / "adapter_model.safetensors")
    assert sum("lora_magnitude_vector" in name for name in weights) == 14

    base = "original" if method == "lora" else "dequantized"
    merged = merge(MergeConfig(adapter=adapter, output=tmp_path / "merged", dtype="fp32", merge_base=base))  # type: ignore[arg-type]
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.inference_mode():
        expected = as_trained(adapter, tiny_llama_dir, method)(input_ids=ids).logits
        found = load_model(merged, dtype="fp32", device="cpu")(input_ids=ids).logits
        untrained = load_model(tiny_llama_dir, dtype="fp32", device="cpu")(input_ids=ids).logits
    largest = float((expected - found).abs().max())
    assert largest <= 1e-4  # DESIGN: "Equality, in numbers"
    assert float((expected - untrained).abs().max()) > 10 * largest
    # the figure compares what was written with base and adapter as trained
    assert read_manifest(merged).metrics["fidelity"]["mean_kl"] < 1e-2


def test_an_nf4_base_under_dora_stays_readable(tiny_llama_dir: Path, data: Path, tmp_path: Path) -> None:
    """bitsandbytes would repack it at the first pass, and DoRA would then read noise in the second."""
    adapter = train(
        tiny_config(
            tiny_llama_dir, data, tmp_path / "run", method="qlora", dtype="bf16", max_steps=2,
            lora=LoraSettings(rank=4, dora=True),
        )
    )  # fmt: skip
    model = load_model(adapter, dtype="bf16", device="cpu")
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
    assert torch.equal(first, second)
