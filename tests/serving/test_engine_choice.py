"""Which engine export takes, what it refuses, and what a converted version holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig, GPTJConfig, PreTrainedTokenizerFast

from checkpoints.errors import ConfigError, UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.manifest import Manifest, manifest_sha256, read_manifest
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.registry import ENGINES
from serving.engine.torch import exporting
from serving.engine_choice import choose_engine
from serving.export import export
from tests.serving.endpoint import sealed_llama
from tests.tiny_models import build_tiny_tokenizer

Make = Callable[..., Path]


def choose(make_checkpoint: Make, *, changed: dict[str, Any] | None = None, **options: Any) -> EngineConfig:
    checkpoint = make_checkpoint(**(changed or {}))
    manifest: Manifest = read_manifest(checkpoint)
    from transformers import AutoConfig

    config = ExportConfig(checkpoint, Path("repository"), **options)
    return choose_engine(config, manifest, AutoConfig.from_pretrained(checkpoint))


@pytest.mark.parametrize(
    ("changed", "options", "expected"),
    [
        ({}, {}, ("openvino", "fp32", "fp32")),
        ({"dtype": "bf16"}, {}, ("openvino", "fp16", "fp16")),
        ({"dtype": "bf16"}, {"engine": "openvino", "weights": "int8"}, ("openvino", "int8", "fp16")),
        ({"dtype": "bf16"}, {"weights": "int4"}, ("openvino", "int4", "fp16")),
        ({}, {"device": "gpu"}, ("torch", "fp32", "fp32")),
        ({"dtype": "bf16"}, {"engine": "torch"}, ("torch", "bf16", "bf16")),
        ({"dtype": "bf16"}, {"weights": "bf16"}, ("torch", "bf16", "bf16")),
        ({}, {"format": "onnx"}, ("onnx", "fp32", "fp32")),
    ],
)
def test_the_engine_and_its_precision(
    make_checkpoint: Make, changed: dict[str, Any], options: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    engine = choose(make_checkpoint, changed=changed, **options)
    assert (engine.engine, engine.weights, engine.kv_dtype) == expected


@pytest.mark.parametrize(
    ("engine", "asked", "expected"),
    [("torch", None, 3 * 100), ("onnx", None, 3 * 100), ("openvino", None, 3 * 128), ("openvino", 150, 150)],
)
def test_the_size_of_the_kv_cache_is_written_out(
    make_checkpoint: Make, engine: str, asked: int | None, expected: int
) -> None:
    found = choose(make_checkpoint, engine=engine, slots=3, max_context=100, kv_tokens=asked)
    assert found.kv_tokens == expected
    assert found.threads is None  # the server decides


@pytest.mark.parametrize(
    ("fast", "weights", "expected"),
    [(True, "int8", "torch"), (False, "int8", "openvino"), (True, None, "openvino")],
)
def test_int8_is_for_the_engine_that_is_fastest_on_this_machine(
    make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch, fast: bool, weights: Any, expected: str
) -> None:
    monkeypatch.setattr(exporting, "computes_int8", lambda: fast)
    assert choose(make_checkpoint, weights=weights, device="cpu").engine == expected


@pytest.mark.parametrize("gpu", [True, False])
def test_int8_of_torch_is_for_a_cpu_wherever_it_is_served(
    make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if gpu:
        with pytest.raises(UnsupportedCheckpoint, match="set device to cpu"):
            choose(make_checkpoint, engine="torch", weights="int8")
    else:
        assert choose(make_checkpoint, engine="torch", weights="int8").device == "cpu"


def test_nf4_is_for_the_torch_engine(make_checkpoint: Make) -> None:
    nf4 = {"kind": "quantized", "dtype": "bf16", "quantization": {"method": "nf4"}}
    engine = choose(make_checkpoint, changed=nf4)
    assert (engine.engine, engine.weights) == ("torch", "nf4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "torch", "weights": "int4"}, r"weights is int4.*torch engine.*--engine o"),
        ({"engine": "openvino", "prefix_cache": True}, r"prefix_cache.*not by openvino.*--engine torch"),
        ({"engine": "openvino", "device_map": "auto"}, r"device_map.*not for openvino.*--engine torch"),
        ({"engine": "openvino", "weights": "nf4"}, r"weights is nf4.*openvino engine.*no engine"),
        ({"engine": "openvino", "weights": "bf16"}, r"weights is bf16.*openvino engine.*--engine torch"),
        ({"engine": "torch", "kv_dtype": "u8"}, r"kv_dtype is u8.*torch engine.*--engine openvino"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_one_that_can(
    make_checkpoint: Make, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=message):
        choose(make_checkpoint, **options)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_an_architecture_that_one_engine_cannot_serve_names_the_one_that_can(
    make_checkpoint: Make, engine: Any
) -> None:
    checkpoint = make_checkpoint()
    model_config = GPTJConfig()
    config = ExportConfig(checkpoint, Path("repository"), engine=engine)
    with pytest.raises(
        UnsupportedCheckpoint, match=f"{engine} engine .*'gptj'.*; export with --engine torch$"
    ):
        choose_engine(config, read_manifest(checkpoint), model_config)


@pytest.mark.parametrize("engine", ENGINES)
def test_frequencies_that_change_with_the_length_are_refused_in_any_layer(
    make_checkpoint: Make, engine: Any
) -> None:
    plain = {"rope_type": "default", "rope_theta": 10_000.0}
    changing = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    model_config = Gemma3TextConfig(
        sliding_window=128, rope_parameters={"sliding_attention": plain, "full_attention": changing}
    )
    checkpoint = make_checkpoint()
    config = ExportConfig(checkpoint, Path("repository"), engine=engine)
    with pytest.raises(UnsupportedCheckpoint, match=r"rotary embedding \(dynamic\).*no engine serves it"):
        choose_engine(config, read_manifest(checkpoint), model_config)


def test_format_and_engine_must_agree() -> None:
    with pytest.raises(ConfigError, match="format is 'onnx', but engine is 'torch'"):
        ExportConfig(Path("checkpoint"), Path("repository"), engine="torch", format="onnx")
    with pytest.raises(ConfigError, match="calibration is given, but fidelity is false"):
        ExportConfig(Path("checkpoint"), Path("repository"), calibration=Path("x"), fidelity=False)


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path / "checkpoint", tiny_tokenizer)


@pytest.mark.parametrize(
    ("engine", "weights", "largest_kl"),
    [("openvino", "fp32", 1e-6), ("openvino", "int8", 0.05), ("onnx", "fp32", 1e-6)],
)
def test_a_converted_version_is_sealed_with_what_it_cost(
    checkpoint: Path, tmp_path: Path, engine: Any, weights: Any, largest_kl: float
) -> None:
    version = export(ExportConfig(checkpoint, tmp_path / "repository", engine=engine, weights=weights))
    served = version / "checkpoint"
    manifest = read_manifest(served, verify=True)
    assert manifest.parent is not None
    assert manifest.parent.manifest_sha256 == manifest_sha256(checkpoint)
    assert manifest.tokens == read_manifest(checkpoint).tokens
    assert not list(served.rglob("*.safetensors"))
    assert (manifest.quantization is not None) == (weights == "int8")
    # A byte or four for each weight, and the graph beside them.
    least = {"fp32": 4, "int8": 1}[weights]
    assert least < manifest.bytes_per_parameter
    fidelity = manifest.metrics["fidelity"]
    assert fidelity["mean_kl"] < largest_kl
    assert manifest.metrics["perplexity"] == fidelity["perplexity_candidate"]
    assert EngineConfig.read(version / "engine.json").engine == engine
    # Embedding and products are packed; what is left has one dimension.
    left = {one.name: (one.dtype, one.reason) for one in manifest.kept_16bit}
    names = [name for name, tensor in load_model(checkpoint).named_parameters() if tensor.ndim == 1]
    assert left == (dict.fromkeys(names, ("float16", "norm or bias")) if weights == "int8" else {})


def test_int8_of_the_torch_engine_is_measured_and_made_when_it_is_loaded(
    checkpoint: Path, tmp_path: Path
) -> None:
    version = export(ExportConfig(checkpoint, tmp_path / "repository", engine="torch", weights="int8"))
    manifest = read_manifest(version / "checkpoint", verify=True)
    original = read_manifest(checkpoint)
    assert manifest.settings["export"] == {"engine": "torch", "weights": "int8"}
    assert (manifest.quantization, manifest.dtype) == (None, original.dtype)
    assert manifest.files == original.files
    assert 0 < manifest.metrics["fidelity"]["mean_kl"] < 0.05
    assert EngineConfig.read(version / "engine.json").weights == "int8"


def test_a_conversion_that_costs_perplexity_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # A model is best on its own text, so whatever moves its weights costs perplexity there. Without
    # merges, one ASCII character is one token and the text encodes to the tokens that were drawn.
    tokenizer = build_tiny_tokenizer(vocabulary=260)
    checkpoint = sealed_llama(tmp_path / "checkpoint", tokenizer, hidden_size=128, intermediate_size=256)
    ascii_ids = [tokenizer.encode(chr(code), add_special_tokens=False)[0] for code in range(32, 127)]
    other = [token for token in range(len(tokenizer)) if token not in ascii_ids]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        texts = load_model(checkpoint).generate(
            torch.tensor([ascii_ids[:8]] * 8),
            max_new_tokens=64,
            do_sample=True,
            temperature=0.5,
            suppress_tokens=other,
            pad_token_id=0,
        )
    rows = [json.dumps({"text": tokenizer.decode(row)}) for row in texts]
    (tmp_path / "own.jsonl").write_text("\n".join(rows))
    config = ExportConfig(
        checkpoint,
        tmp_path / "repository",
        engine="openvino",
        weights="int4",
        calibration=tmp_path / "own.jsonl",
    )
    with caplog.at_level("WARNING", logger="serving"):
        version = export(config)
    assert read_manifest(version / "checkpoint").metrics["fidelity"]["perplexity_ratio"] > 1.01
    worse = [record.getMessage() for record in caplog.records if "more than 1% worse" in record.getMessage()]
    assert len(worse) == 1
    assert "int4" in worse[0]
