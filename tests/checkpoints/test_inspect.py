from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from checkpoints.errors import CheckpointError
from checkpoints.inspect import InspectConfig, inspect_checkpoint
from checkpoints.manifest import read_manifest


def test_inspect_tells_lineage_sizes_and_figures(packed: Path, tiny_llama_dir: Path) -> None:
    text = inspect_checkpoint(InspectConfig(packed, verify=True))
    lines = [line.strip() for line in text.splitlines()]
    chain = [line for line in lines if line.startswith("<- ")]
    assert [line.split()[1] for line in chain] == ["merged", "adapter"]
    assert f"base            {tiny_llama_dir.resolve()}" in lines
    manifest = read_manifest(packed)
    assert f"parameters      94,528, {manifest.bytes_per_parameter:.2f} bytes each" in lines
    assert "kept in 16 bit  6 tensors: 1 embedding, tied with lm_head, 5 norm" in lines
    assert "eval_loss       not measured" in lines
    assert "verified" in text
    assert "context         256 tokens" in lines


def test_inspect_prints_the_manifest_as_json(packed: Path) -> None:
    record = json.loads(inspect_checkpoint(InspectConfig(packed, json=True)))
    assert record == json.loads((packed / "trimaran.json").read_text())


def test_inspect_verify_names_the_file(packed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(packed, copy)
    (copy / "generation_config.json").write_text("{}")
    assert inspect_checkpoint(InspectConfig(copy))
    with pytest.raises(CheckpointError, match=r"generation_config\.json has sha256"):
        inspect_checkpoint(InspectConfig(copy, verify=True))
    # Away from its parents, the lineage still names them.
    assert "<- merged" in inspect_checkpoint(InspectConfig(copy))


def test_inspect_without_a_manifest(tiny_llama_dir: Path, tmp_path: Path) -> None:
    text = inspect_checkpoint(InspectConfig(tiny_llama_dir))
    assert "kind            safetensors; no trimaran.json" in text
    assert "architecture    LlamaForCausalLM" in text
    assert "0.4 MB in model.safetensors" in text
    with pytest.raises(CheckpointError, match=r"no trimaran\.json"):
        inspect_checkpoint(InspectConfig(tiny_llama_dir, json=True))
    with pytest.raises(CheckpointError, match="does not exist"):
        inspect_checkpoint(InspectConfig(tmp_path / "missing" / "deep"))
