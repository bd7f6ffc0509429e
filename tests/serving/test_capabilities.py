"""The documented capabilities are those of the code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.manifest import read_manifest
from serving.capabilities import _CHECKPOINTS, render_capabilities, replace_tables
from serving.engine.config import EngineConfig
from serving.engine.registry import ENGINES, find_exporter

DOCUMENT = Path(__file__).parents[2] / "docs" / "engines.md"


def test_the_documented_tables_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert render_capabilities() in text, "run: python -m serving.capabilities"
    assert replace_tables(text) == text


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize(
    ("label", "changed"),
    [
        ("base, full, merged LoRA or QLoRA", {}),
        (
            "NF4 (`trimaran quantize`)",
            {"kind": "quantized", "dtype": "bf16", "quantization": {"method": "nf4"}},
        ),
        ("bottleneck adapter, on its base", {"kind": "adapter", "method": "bottleneck"}),
    ],
)
def test_every_engine_takes_the_checkpoints_it_is_said_to_take(
    make_checkpoint: Callable[..., Path], engine: str, label: str, changed: dict[str, Any]
) -> None:
    manifest = read_manifest(make_checkpoint(**changed))
    exporter = find_exporter(engine)
    weights = exporter.default_weights(manifest)
    kv_dtype = exporter.default_kv_dtype(manifest, weights)
    settings = EngineConfig(engine=engine, weights=weights, kv_dtype=kv_dtype, max_context=64)
    refusing = nullcontext() if engine in _CHECKPOINTS[label] else pytest.raises(UnsupportedCheckpoint)
    with refusing:
        exporter.check(manifest, LlamaConfig(), settings)
