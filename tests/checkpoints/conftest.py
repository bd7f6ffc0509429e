"""A lineage every stage test can start from: base, adapter, merged, NF4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoints.loading import base_manifest, load_model, load_tokenizer
from checkpoints.manifest import Parent, manifest_sha256, read_manifest, seal
from checkpoints.quantize import QuantizeConfig, quantize
from tests.checkpoints.test_adapters import save_adapter


@pytest.fixture(scope="session")
def merged(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged checkpoint of the tiny base, as ``trimaran merge`` leaves it. Do not change it."""
    root = tmp_path_factory.mktemp("lineage")
    adapter, _ = save_adapter(tiny_llama_dir, root / "adapter")
    model: Any = load_model(adapter)
    whole = model.merge_and_unload()
    directory = root / "merged"
    whole.save_pretrained(directory)
    tokenizer = load_tokenizer(tiny_llama_dir)
    tokenizer.save_pretrained(directory)
    manifest = read_manifest(adapter)
    described = base_manifest(directory, whole, tokenizer)
    metrics = {**manifest.metrics, "final_loss": 1.25, "perplexity": 99.0}
    parent = Parent("adapter", manifest_sha256(adapter))
    seal(
        directory,
        replace(described, kind="merged", method="lora", base=manifest.base, metrics=metrics, parent=parent),
    )
    return directory


@pytest.fixture(scope="session")
def packed(merged: Path) -> Path:
    return quantize(QuantizeConfig(merged, merged.parent / "nf4"))
