"""What export does for the openvino engine: refuse by name, write every precision, and measure it."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from checkpoints.errors import ServingError, UnsupportedCheckpoint
from checkpoints.fidelity import measure_fidelity
from checkpoints.loading import load_model
from checkpoints.manifest import Manifest, read_manifest
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.openvino.exporting import EXPORTER
from serving.engine.openvino.files import MODEL_NAME, model_folder
from serving.engine.openvino.loading import load_engine
from serving.engine.openvino.properties import compile_properties, computed_in
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.export import export
from tests.serving.endpoint import sealed_llama
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.openvino.architectures import build

# A wide model, so that rounding its weights shows as it would in a real one.
WIDE = {"hidden_size": 128, "intermediate_size": 256}

COMPUTES_IN_BF16 = ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT") == ov.Type.bf16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("export") / "checkpoint", tiny_tokenizer, **WIDE)


@pytest.fixture(scope="module")
def manifest(checkpoint: Path) -> Manifest:
    return read_manifest(checkpoint)


def settings(weights: str = "fp32", **options: Any) -> EngineConfig:
    values = {"kv_dtype": "fp32" if weights == "fp32" else "fp16", "slots": 2, "max_context": 128, **options}
    return EngineConfig(engine="openvino", weights=weights, threads=1, **values)


@pytest.mark.parametrize(
    ("weights", "largest_kl", "smallest_kl"),
    # Measured here: 3e-8, 4e-5, 8e-3 and 0.8 nats; each must be of its own size, not its neighbour's.
    # Where the CPU computes fp16 weights in bf16, 2e-3: the rounding of what lies between the layers.
    [
        ("fp32", 1e-6, 0.0),
        ("fp16", 5e-3 if COMPUTES_IN_BF16 else 5e-4, 1e-6),
        ("int8", 0.1, 5e-4),
        ("int4", 5.0, 0.1),
    ],
)
def test_each_precision_is_as_close_as_it_should_be(
    checkpoint: Path, manifest: Manifest, tmp_path: Path, weights: str, largest_kl: float, smallest_kl: float
) -> None:
    config = settings(weights)
    target = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns("*.safetensors"))
    EXPORTER.convert(checkpoint, target, config)
    draw = random.Random(1)
    rows = [torch.tensor([draw.randrange(4, 320) for _ in range(64)]) for _ in range(3)]
    fidelity = measure_fidelity(load_model(checkpoint), EXPORTER.logits_model(target, config), rows)
    print(weights, fidelity.mean_kl)
    assert smallest_kl <= fidelity.mean_kl <= largest_kl
    engine = load_engine(target, config, manifest)
    (events,) = drive(engine, [GenerationRequest([5, 6], SamplingParameters(max_tokens=4, ignore_eos=True))])
    engine.close()
    assert len(token_ids(events)) == 4


def test_defaults_follow_the_checkpoint(manifest: Manifest) -> None:
    assert EXPORTER.default_weights(manifest) == "fp32"
    assert EXPORTER.default_weights(replace(manifest, dtype="bf16")) == "fp16"
    assert EXPORTER.default_kv_dtype(manifest, "fp32") == "fp32"
    assert EXPORTER.default_kv_dtype(manifest, "int8") == "fp16"


def test_the_precision_it_computes_in_is_said_and_recorded(
    checkpoint: Path,
    manifest: Manifest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    here = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}[plugin]
    assert computed_in(compile_properties(settings("fp32"))) == "fp32"
    assert computed_in(compile_properties(settings("int8"))) == here
    version = export(
        ExportConfig(
            checkpoint, tmp_path, engine="openvino", weights="int8", max_context=64, infer_model=False
        )
    )
    written = read_manifest(version / "checkpoint")
    assert written.metrics["fidelity"]["computed_in"] == here
    other = replace(written, metrics={"fidelity": {"computed_in": "fp64"}})
    caplog.set_level("INFO")
    load_engine(version / "checkpoint", EngineConfig.read(version / "engine.json"), other).close()
    assert f"int8 weights, computed in {here} on this CPU" in caplog.text
    assert "measured in fp64" in caplog.text


def test_nf4_gpu_and_wrong_caches_are_refused(checkpoint: Path, manifest: Manifest) -> None:
    model_config = AutoConfig.from_pretrained(checkpoint)
    EXPORTER.check(manifest, model_config, settings())
    with pytest.raises(UnsupportedCheckpoint, match="NF4"):
        EXPORTER.check(replace(manifest, quantization={"method": "nf4"}), model_config, settings())
    with pytest.raises(UnsupportedCheckpoint, match="CPUs"):
        EXPORTER.check(manifest, model_config, settings(device="cuda"))
    latent = build("deepseek_v3").config
    EXPORTER.check(manifest, latent, settings("int8"))
    with pytest.raises(UnsupportedCheckpoint, match=r"u8.*deepseek_v3"):
        EXPORTER.check(manifest, latent, settings("int8", kv_dtype="u8"))


@pytest.mark.parametrize(
    ("value", "weights", "said"),
    [(70_000.0, "int8", "holds 70000, more than fp16"), (float("nan"), "fp32", "holds nan; .*damaged")],
)
def test_what_cannot_be_held_is_refused(
    checkpoint: Path, tmp_path: Path, value: float, weights: str, said: str
) -> None:
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = value
    model.save_pretrained(tmp_path / "odd")
    (tmp_path / "target").mkdir()
    with pytest.raises(UnsupportedCheckpoint, match=rf"layers\.1\.mlp\.up_proj\.weight {said}"):
        EXPORTER.convert(tmp_path / "odd", tmp_path / "target", settings(weights))


def test_a_version_without_its_model_is_refused(checkpoint: Path, manifest: Manifest) -> None:
    with pytest.raises(ServingError, match=r"openvino_model.xml is missing; export"):
        load_engine(checkpoint, settings(), manifest)


def test_a_damaged_model_is_refused(checkpoint: Path, manifest: Manifest, tmp_path: Path) -> None:
    shutil.copyfile(checkpoint / "config.json", tmp_path / "config.json")
    model_folder(tmp_path).mkdir()
    (model_folder(tmp_path) / MODEL_NAME).write_text("<net>", encoding="utf-8")
    with pytest.raises(ServingError, match=r"OpenVINO cannot load"):
        load_engine(tmp_path, settings(), manifest)
