"""DeepSeek-MoE 16B's architecture through the stages: train, merge, prune, export, the torch engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from serving.engine.request import GenerationRequest, SamplingParameters
from tests.checkpoints.architectures.published import published_config, write_published
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.engine.engines import build_engine, drive, token_ids
from tests.serving.engine.torch.architectures import prompts
from trimaran.cli import main


def test_from_published_weights_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "cache"))
    source = write_published(tmp_path / "source", published_config())
    rows = [{"prompt": f"count {number}: ", "completion": str(number)} for number in range(8)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def trimaran(*arguments: object) -> None:
        assert main([str(argument) for argument in arguments]) == 0

    run, merged, pruned = tmp_path / "run", tmp_path / "merged", tmp_path / "pruned"
    trimaran("train", "--model", source, "--data.train", data, "--output", run, "--epochs", 1)
    trimaran("merge", run / "adapter", "--output", merged, "--dtype", "fp32")
    before, after = load_file(source / "model.safetensors"), load_file(merged / "model.safetensors")
    assert before.keys() == after.keys()  # the published names
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.layers.1.self_attn.q_proj.weight" in changed
    assert not [name for name in changed if ".experts." in name or "mlp.gate.weight" in name]

    trimaran("prune-experts", merged, "--num-experts", 5, "--output", pruned, "--calibration", data)
    trimaran("export", pruned, "--repository", tmp_path / "models", "--engine", "torch")
    version = tmp_path / "models" / "llm" / "1" / "checkpoint"
    manifest = read_manifest(version, verify=True)
    assert (manifest.kind, manifest.method, manifest.needs_import) == ("pruned", "lora", True)

    ids = prompts(4)
    references = [generate_greedily(load_model(version), item, 12, manifest.tokens.stop) for item in ids]
    engine = build_engine("torch", version, tmp_path / "engine")
    found = drive(engine, [GenerationRequest(item, SamplingParameters(max_tokens=12)) for item in ids])
    assert_equal_tokens(references, [token_ids(events) for events in found])
