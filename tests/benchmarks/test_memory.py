"""What the benchmark of memory counts, and of whom."""

from __future__ import annotations

from pathlib import Path

from benchmarks.memory import default_engines, model_bytes
from serving.engine.registry import ENGINES


def test_every_engine_is_measured() -> None:
    measured = [name.split("-") for name in default_engines()]
    assert {engine for engine, _ in measured} == set(ENGINES)
    assert {"nf4", "int8"} <= {weights for _, weights in measured}


def test_the_weights_of_every_format_count(tmp_path: Path) -> None:
    sizes = {
        "model.safetensors": 1,
        "openvino/openvino_model.bin": 10,
        "openvino/openvino_model.xml": 1000,
        "model.onnx": 100,
        "model.onnx.data": 200,
        "tokenizer.json": 1000,
    }
    for name, size in sizes.items():
        file = tmp_path / "checkpoint" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    assert model_bytes(tmp_path) == 311
