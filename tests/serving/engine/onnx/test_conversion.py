"""A checkpoint exported for the onnx engine: verified, whole, quantized on request, and served."""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, PreTrainedTokenizerFast

from checkpoints.errors import ExportError, UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from serving.engine.config import EngineConfig
from serving.engine.onnx.conversion import convert
from serving.engine.onnx.exporting import EXPORTER
from serving.engine.onnx.runner import OnnxRunner
from serving.engine.onnx.session import MODEL_NAME, WEIGHTS_NAME, open_session
from serving.engine.onnx.verification import check_file, check_logits, probe
from tests.serving.endpoint import sealed_llama

CONTEXT = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("onnx") / "checkpoint", tiny_tokenizer)


@pytest.fixture(scope="module", params=["fp32", "int8", "int4"])
def converted(request: pytest.FixtureRequest, checkpoint: Path) -> tuple[str, Path]:
    target = checkpoint.parent / request.param
    target.mkdir()
    convert(checkpoint, target, request.param)
    return request.param, target


def prompt(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(4, 320) for _ in range(length)]


def settings(weights: str = "fp32", **options: object) -> EngineConfig:
    return EngineConfig(**{"weights": weights, "kv_dtype": "fp32", "max_context": CONTEXT, **options})  # type: ignore[arg-type]


def test_the_directory_holds_graph_and_weights_and_nothing_else(converted: tuple[str, Path]) -> None:
    _, target = converted
    assert sorted(path.name for path in target.iterdir()) == [MODEL_NAME, WEIGHTS_NAME]
    assert len({path.stat().st_mode for path in target.iterdir()}) == 1  # whoever reads one reads the other
    check_file(target)


def test_the_written_model_gives_the_checkpoints_logits(
    checkpoint: Path, converted: tuple[str, Path]
) -> None:
    weights, target = converted
    ids = torch.tensor([prompt(40)])
    found = EXPORTER.logits_model(target, settings(weights))(input_ids=ids, use_cache=False).logits
    with torch.inference_mode():
        expected = load_model(checkpoint, dtype="fp32")(input_ids=ids).logits
    drift = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    print(f"{weights}: logits drift by {drift:.2e}, root mean square")
    assert drift < {"fp32": 1e-5, "int8": 0.1, "int4": 0.8}[weights]
    if weights != "fp32":
        assert drift > 1e-4, "nothing was quantized"


def test_what_is_left_in_32_bits_is_named(checkpoint: Path, converted: tuple[str, Path]) -> None:
    weights, target = converted
    if weights == "fp32":
        return
    kept = {one.name: one.reason for one in EXPORTER.kept(checkpoint, target, settings(weights))}
    names = [name for name, tensor in load_model(checkpoint).named_parameters() if tensor.ndim == 1]
    assert kept == {**dict.fromkeys(names, "norm or bias"), "model.embed_tokens.weight": "embedding"}


def test_a_row_does_not_depend_on_the_rows_beside_it(converted: tuple[str, Path]) -> None:
    _, target = converted
    session = open_session(target, 1)
    ids = prompt(20)

    def last_logits(neighbours: list[list[int]]) -> torch.Tensor:
        runner = OnnxRunner(session, slots=1 + len(neighbours), max_context=CONTEXT)
        rows = [ids, *neighbours]
        for row, item in enumerate(rows):
            runner.prefill(row, item[:-1], 0)
        return runner.decode([item[-1] for item in rows], [len(item) - 1 for item in rows])[0].clone()

    alone = last_logits([])
    beside = last_logits([prompt(length, seed=length) for length in (3, 50, 31)])
    # The order of sums may change with the batch, a scale of activations must not.
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-4 * float(alone.abs().max()))


@pytest.mark.parametrize("converted", ["fp32"], indirect=True)
def test_many_rows_of_different_lengths_equal_torch(checkpoint: Path, converted: tuple[str, Path]) -> None:
    _, target = converted
    rows = [prompt(length, seed=length) for length in range(2, 34)]
    runner = OnnxRunner(open_session(target, 2), slots=len(rows), max_context=CONTEXT)
    for row, ids in enumerate(rows):
        runner.prefill(row, ids[:-1], 0)
    found = runner.decode([ids[-1] for ids in rows], [len(ids) - 1 for ids in rows])
    model = load_model(checkpoint, dtype="fp32")
    with torch.inference_mode():
        expected = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in rows])
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("converted", ["fp32"], indirect=True)
def test_a_corrupted_weight_is_noticed(checkpoint: Path, converted: tuple[str, Path], tmp_path: Path) -> None:
    _, target = converted
    expected = probe(load_model(checkpoint, dtype="fp32"))
    check_logits(target, expected)
    (tmp_path / MODEL_NAME).write_bytes((target / MODEL_NAME).read_bytes())
    numbers = np.frombuffer((target / WEIGHTS_NAME).read_bytes(), dtype=np.float32).copy()
    numbers[len(numbers) // 2 :][np.abs(numbers[len(numbers) // 2 :]).argmax()] *= -1
    (tmp_path / WEIGHTS_NAME).write_bytes(numbers.tobytes())
    with pytest.raises(ExportError, match="does not equal torch"):
        check_logits(tmp_path, expected)


@pytest.mark.parametrize("converted", ["fp32"], indirect=True)
def test_a_damaged_file_is_noticed(converted: tuple[str, Path], tmp_path: Path) -> None:
    _, target = converted
    (tmp_path / MODEL_NAME).write_bytes((target / MODEL_NAME).read_bytes())
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_file(tmp_path)  # its weights are not there


def test_a_failed_conversion_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tolerance that no computation meets: all is written and then refused.
    monkeypatch.setattr("serving.engine.onnx.verification.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="does not equal torch"):
        convert(checkpoint, tmp_path, "fp32")
    assert list(tmp_path.iterdir()) == []


def test_16_bit_checkpoints_are_served_in_fp32(checkpoint: Path) -> None:
    manifest = replace(read_manifest(checkpoint), dtype="bf16")
    assert EXPORTER.default_weights(manifest) == "fp32"
    assert EXPORTER.default_kv_dtype(manifest, "int8") == "fp32"


def test_what_cannot_be_served_is_refused(checkpoint: Path) -> None:
    manifest = read_manifest(checkpoint)
    llama = LlamaConfig()
    EXPORTER.check(manifest, llama, settings())
    for config, reason in ((settings(device="cuda"), "on the CPU"),):
        with pytest.raises(UnsupportedCheckpoint, match=reason):
            EXPORTER.check(manifest, llama, config)
    for odd, reason in (
        (replace(manifest, quantization={"method": "nf4"}), "unquantized checkpoints, not nf4"),
        (replace(manifest, remote_code=True), "Python code of its own"),
    ):
        with pytest.raises(UnsupportedCheckpoint, match=reason):
            EXPORTER.check(odd, llama, settings())


@pytest.mark.triton
def test_it_loads_in_the_environment_inside_triton(checkpoint: Path, converted: tuple[str, Path]) -> None:
    from serving.triton_runtime import runtime_layer

    weights, target = converted
    manifest = checkpoint / "trimaran.json"
    code = f"""
import json, sys, numpy
from pathlib import Path
from checkpoints.manifest import read_manifest
from serving.engine.config import EngineConfig
from serving.engine.registry import load_engine
config = EngineConfig(engine="onnx", weights={weights!r}, kv_dtype="fp32", max_context=32, slots=2, threads=1)
engine = load_engine(Path({str(target)!r}), config, read_manifest(Path({str(manifest.parent)!r})))
print(json.dumps([numpy.__version__, engine.capacity.slots, "onnx" in sys.modules]))
"""
    done = subprocess.run(
        [runtime_layer() / "bin" / "python3", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["1.26.4", 2, False]
