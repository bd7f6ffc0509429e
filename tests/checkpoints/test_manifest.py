from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checkpoints.errors import ManifestError
from checkpoints.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    BaseModel,
    KeptTensor,
    Manifest,
    Parent,
    TokenIds,
    TrainingData,
    manifest_sha256,
    read_manifest,
    seal,
)

MANIFEST = Manifest(
    kind="quantized",
    base=BaseModel("owner/base", "abc123", {"model.safetensors": "00" * 32}),
    dtype="bf16",
    parameters=94528,
    bytes_per_parameter=0.9,
    tokens=TokenIds(bos=1, eos=[2], pad=None, stop=[2, 0], add_bos=True),
    max_context=256,
    method="lora",
    settings={"lora": {"r": 8}},
    merge_base="dequantized",
    quantization={"method": "nf4"},
    kept_16bit=[KeptTensor("lm_head.weight", "bfloat16", "lm_head")],
    licence="apache-2.0",
    training_data=[TrainingData("train.jsonl", "11" * 32, 48)],
    parent=Parent("merged", "22" * 32),
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "nested").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "nested" / "tokenizer.json").write_text("{}")
    seal(tmp_path, MANIFEST)
    return tmp_path


def edit(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / MANIFEST_NAME
    record = json.loads(path.read_text())
    record.update(changes)
    path.write_text(json.dumps({key: value for key, value in record.items() if value != "DELETE"}))


def test_what_is_sealed_is_read_back(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint, verify=True)
    assert replace(manifest, files={}) == MANIFEST
    assert set(manifest.files) == {"model.safetensors", "nested/tokenizer.json"}
    assert manifest.metrics == {"final_loss": None, "eval_loss": None, "perplexity": None, "fidelity": None}
    assert {"python", "torch", "transformers"} <= set(manifest.tools)


def test_weights_are_as_readable_as_the_manifest(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    ours, theirs = checkpoint / "model.safetensors", checkpoint / "linked.safetensors"
    for path in (ours, theirs):
        path.touch(0o600)
    (tmp_path / "original.safetensors").hardlink_to(theirs)
    seal(checkpoint, MANIFEST)
    assert ours.stat().st_mode == (checkpoint / MANIFEST_NAME).stat().st_mode
    assert theirs.stat().st_mode & 0o777 == 0o600


def test_a_changed_manifest_has_another_hash(checkpoint: Path) -> None:
    first = manifest_sha256(checkpoint)
    seal(checkpoint, replace(MANIFEST, licence="mit"))
    assert manifest_sha256(checkpoint) != first


def test_a_file_that_differs_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"weightz")
    assert read_manifest(checkpoint) is not None  # only verify hashes
    with pytest.raises(ManifestError, match=r"model\.safetensors has sha256") as caught:
        read_manifest(checkpoint, verify=True)
    assert "tokenizer" not in str(caught.value)
    (checkpoint / "nested" / "tokenizer.json").unlink()
    with pytest.raises(ManifestError, match=r"nested/tokenizer\.json is missing"):
        read_manifest(checkpoint, verify=True)


def test_no_manifest_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no trimaran\.json, so it is not a finished checkpoint"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match="no trimaran"):
        manifest_sha256(tmp_path)


def test_a_newer_schema_is_refused_before_its_fields_are_read(checkpoint: Path) -> None:
    edit(checkpoint, schema_version=SCHEMA_VERSION + 1, invented_later=1)
    with pytest.raises(ManifestError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade"):
        read_manifest(checkpoint)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "DELETE"}, "field kind is missing"),
        ({"kind": "melted"}, "kind is 'melted', expected one of base, adapter"),
        ({"invented": 1}, "unknown field invented"),
        ({"parameters": "many"}, "parameters is 'many', expected an integer"),
        ({"tokens": {"bos": 1}}, "field tokens.eos is missing"),
        (
            {"kept_16bit": [{"name": "a", "dtype": 5, "reason": "b"}]},
            r"kept_16bit\[0\].dtype is 5, expected str",
        ),
        ({"files": {"a": None}}, "files.a is None, expected str"),
    ],
)
def test_a_wrong_field_is_named(checkpoint: Path, changes: dict[str, Any], reason: str) -> None:
    edit(checkpoint, **changes)
    with pytest.raises(ManifestError, match=reason):
        read_manifest(checkpoint)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_an_unreadable_manifest(checkpoint: Path, text: str) -> None:
    (checkpoint / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError, match=r"trimaran\.json"):
        read_manifest(checkpoint)
