"""train -> merge -> NF4 -> export -> serve, for one tiny model of each family.

Each exported version runs in its engine, and one Triton serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from checkpoints.errors import UnsupportedCheckpoint
from checkpoints.loading import load_model
from checkpoints.manifest import manifest_sha256, read_manifest
from checkpoints.prompt import PromptEncoder
from checkpoints.quantize import QuantizeConfig, quantize
from serving.client import TritonClient
from serving.config import ExportConfig
from serving.engine.config import EngineConfig
from serving.engine.registry import load_engine
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.torch.precision import load_in_precision
from serving.export import export
from serving.triton_server import TritonServer
from tests.equality import Reference, assert_equal_tokens, generate_greedily
from tests.serving.engine.engines import drive, token_ids
from tests.tiny_families import FAMILIES
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import MergeConfig
from training.merge import merge
from training.methods.lora.config import LoraSettings
from training.run import train

DOUBLE = {"deepseek-dense", "deepseek-moe", "deepseek-v3"}
"""Families that are quantized with double quantization; the others without."""

PROMPTS = ("What is 3 + 1?", "The quick brown fox", "你好，世界。")
TOKENS = 16

LATENT = "deepseek-v2-openvino"
"""Latent attention in the engine that computes it on CPUs: the merged checkpoint, not the packed one."""


@dataclass(frozen=True)
class Chain:
    """What the stages of one family left."""

    base: Path
    adapter: Path
    merged: Path
    packed: Path
    version: Path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "models"


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, Chain]:
    folder = tmp_path_factory.mktemp("chains")
    data = write_jsonl(folder / "rows.jsonl", chat_rows(8))
    return {name: run_chain(name, folder / name, data, repository) for name in FAMILIES}


def run_chain(name: str, folder: Path, data: Path, repository: Path) -> Chain:
    family = FAMILIES[name]
    base = family.save(folder / "base")
    lora = LoraSettings(rank=4, alpha=32, target_modules=list(family.targets))
    adapter = train(tiny_config(base, data, folder / "run", lora=lora, learning_rate=3e-2, max_steps=4))
    merged = merge(MergeConfig(adapter=adapter, output=folder / "merged", dtype="fp32"))
    packed = pack(merged, folder / "nf4", name)
    version = export(export_config(packed, repository, name=name, kv_dtype="fp32"))
    return Chain(base, adapter, merged, packed, version)


def pack(source: Path, target: Path, name: str) -> Path:
    return quantize(QuantizeConfig(source, target, double_quantization=name in DOUBLE, fidelity=False))


def export_config(checkpoint: Path, repository: Path, **options: Any) -> ExportConfig:
    settings = {"slots": 2, "threads": 1, "device": "cpu", "infer_model": False, "fidelity": False}
    return ExportConfig(checkpoint, repository, **{**settings, **options})


@pytest.fixture(scope="module")
def server(chains: dict[str, Chain], repository: Path) -> Iterator[TritonServer]:
    export(export_config(chains["deepseek-v2"].merged, repository, name=LATENT))
    # One after another: together on few cores they starve each other, and Triton 2.51 was seen to wait for
    # one of them for ever.
    with TritonServer(repository, models=[LATENT], threads=1, exit_timeout=5) as server:
        yield server


def opened(version: Path) -> tuple[Path, EngineConfig, PromptEncoder]:
    checkpoint = version / "checkpoint"
    return checkpoint, EngineConfig.read(version / "engine.json"), PromptEncoder.from_checkpoint(checkpoint)


def references(model: PreTrainedModel, encoder: PromptEncoder) -> list[Reference]:
    return [
        generate_greedily(model, encoder.encode_text(text), TOKENS, encoder.tokens.stop) for text in PROMPTS
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_merge_has_changed_what_was_trained_and_nothing_else(chains: dict[str, Chain], name: str) -> None:
    chain = chains[name]
    before, after = (load_file(path / "model.safetensors") for path in (chain.base, chain.merged))
    assert before.keys() == after.keys()
    trained = {
        weight
        for weight in before
        if weight.split(".")[-2] in FAMILIES[name].targets and ".experts." not in weight
    }
    assert trained
    assert {weight for weight in before if not torch.equal(before[weight], after[weight])} == trained
    fidelity = read_manifest(chain.merged).metrics["fidelity"]
    assert abs(fidelity["mean_kl"]) < 1e-6
    assert fidelity["adapter_retention"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_weights_take_what_nf4_takes(chains: dict[str, Chain], name: str) -> None:
    limit = 0.53 if name in DOUBLE else 0.57
    quantization = read_manifest(chains[name].packed).quantization
    assert quantization is not None
    assert quantization["packed_bytes_per_parameter"] <= limit

    # The same from the files alone. Lookup tables, a kilobyte for each layer of any size, are left out.
    before, after = (
        load_file(path / "model.safetensors") for path in (chains[name].merged, chains[name].packed)
    )
    kept = {weight for weight in before if weight in after and after[weight].shape == before[weight].shape}
    packed = sum(value.numel() for weight, value in before.items() if weight not in kept)
    tables = ("quant_map", "nested_quant_map", "bitsandbytes__nf4")
    stored = sum(
        value.nbytes for weight, value in after.items() if weight not in kept and not weight.endswith(tables)
    )
    assert packed == quantization["packed_parameters"]
    assert 0.5 < stored / packed <= limit
    experts = {weight for weight in before if ".experts." in weight}
    projections = {weight for weight in before if weight.endswith("_proj.weight")}
    assert not kept & (experts | projections)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_stage_names_the_one_before(chains: dict[str, Chain], name: str) -> None:
    chain = chains[name]
    stages = [chain.adapter, chain.merged, chain.packed]
    for parent, child in pairwise(stages):
        manifest = read_manifest(child, verify=True)
        assert manifest.parent is not None
        assert manifest.parent.manifest_sha256 == manifest_sha256(parent)
        assert manifest.base == read_manifest(chain.adapter).base
    served = read_manifest(chain.version / "checkpoint", verify=True)
    assert manifest_sha256(chain.version / "checkpoint") == manifest_sha256(chain.packed)
    assert (served.kind, served.method) == ("quantized", "lora")


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_engine_without_nf4_refuses_it_and_names_the_one_that_has_it(
    chains: dict[str, Chain], tmp_path: Path, name: str, engine: str
) -> None:
    with pytest.raises(
        UnsupportedCheckpoint, match=rf"{engine} engine.*; export with --engine torch$"
    ) as caught:
        export(export_config(chains[name].packed, tmp_path / "models", engine=engine))
    assert "nf4" in str(caught.value).lower()
    assert not (tmp_path / "models").exists()
    assert EngineConfig.read(chains[name].version / "engine.json").engine == "torch"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deepseek-moe", {"engine": "openvino"}, r"openvino engine .*'deepseek':.*--engine torch$"),
        ("deepseek-moe", {"engine": "onnx"}, r"onnx engine .*'deepseek';.*--engine torch$"),
        ("deepseek-v2", {"engine": "onnx"}, r"onnx engine .*'deepseek_v2';.*--engine torch$"),
        ("deepseek-v2", {"engine": "openvino", "kv_dtype": "u8"}, r"u8 gives wrong tokens.*deepseek_v2"),
    ],
)  # fmt: skip
def test_an_architecture_that_an_engine_lacks_is_refused_by_name(
    chains: dict[str, Chain], tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=message):
        export(export_config(chains[name].merged, tmp_path / "models", **options))
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_exported_engine_gives_the_tokens_of_generate(
    chains: dict[str, Chain], tmp_path: Path, name: str
) -> None:
    checkpoint, config, encoder = opened(chains[name].version)
    expected = references(load_in_precision(checkpoint, config), encoder)
    engine = load_engine(checkpoint, replace(config, own_process=False), read_manifest(checkpoint))
    sampling = SamplingParameters(max_tokens=TOKENS)
    requests = [GenerationRequest(encoder.encode_text(text), sampling) for text in PROMPTS]
    assert_equal_tokens(expected, [token_ids(events) for events in drive(engine, requests)])

    # The negative: the base alone, packed in the same way, says something else.
    base = pack(chains[name].base, tmp_path / "base", name)
    untrained = references(load_in_precision(base, config), encoder)
    assert [one.token_ids for one in untrained] != [one.token_ids for one in expected]


@pytest.mark.triton
@pytest.mark.parametrize("name", FAMILIES)
def test_the_served_text_is_that_of_generate(
    chains: dict[str, Chain], server: TritonServer, name: str
) -> None:
    checkpoint, config, encoder = opened(chains[name].version)
    server.load(name)
    try:
        check_served(server, name, references(load_in_precision(checkpoint, config), encoder), encoder)
    finally:
        server.unload(name)  # it is a process that holds torch, and five more are to come


@pytest.mark.triton
def test_latent_attention_is_served_by_openvino_from_the_merged_weights(
    chains: dict[str, Chain], server: TritonServer, repository: Path
) -> None:
    config = EngineConfig.read(repository / LATENT / "1" / "engine.json")
    assert (config.engine, config.weights, config.kv_dtype) == ("openvino", "fp32", "fp32")
    merged = chains["deepseek-v2"].merged
    encoder = PromptEncoder.from_checkpoint(merged)
    check_served(server, LATENT, references(load_model(merged, device="cpu"), encoder), encoder)


def check_served(server: TritonServer, name: str, expected: list[Reference], encoder: PromptEncoder) -> None:
    with TritonClient(server.grpc_url, model=name, timeout=60) as client:
        answers = [client.generate(text=text, max_tokens=TOKENS) for text in PROMPTS]
    assert_equal_tokens(expected, [answer.output_ids for answer in answers])
    for reference, answer in zip(expected, answers, strict=True):
        if answer.output_ids == reference.token_ids:
            assert answer.text == encoder.tokenizer.decode(reference.token_ids, skip_special_tokens=True)
