"""Every architecture the openvino engine lists, converted and served, against ``generate``; in fp32."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import openvino as ov
import pytest
import transformers
from transformers import PreTrainedModel

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.config import EngineConfig
from serving.engine.openvino.architectures import SHOWN_EQUAL, check_architecture
from serving.engine.openvino.conversion.convert import to_graph
from serving.engine.openvino.engine import OpenVinoEngine
from serving.engine.openvino.files import MODEL_NAME, model_folder
from serving.engine.openvino.pipeline import build_pipeline, kv_blocks
from serving.engine.request import GenerationRequest, SamplingParameters
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.openvino.architectures import CONFIGS, VOCABULARY, build

MAX_TOKENS = 20
STOP = 2
DYNAMIC_ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 64,
}


def test_every_listed_architecture_is_tested() -> None:
    assert set(CONFIGS) == SHOWN_EQUAL


@pytest.mark.parametrize("kind", CONFIGS)
def test_overlapping_requests_equal_generate(kind: str, tmp_path: Path) -> None:
    check_equal(build(kind), tmp_path)


@pytest.mark.parametrize(("kind", "rope"), [("llama", LLAMA3_ROPE), ("deepseek_v3", YARN_ROPE)])
def test_scaled_rotary_embeddings_equal_generate(kind: str, rope: dict[str, Any], tmp_path: Path) -> None:
    check_equal(build(kind, rope_parameters=rope), tmp_path)


@pytest.mark.parametrize("kind", ["llama", "mistral", "deepseek_v3"])
def test_an_fp16_kv_cache_equals_generate_at_this_size(kind: str, tmp_path: Path) -> None:
    check_equal(build(kind), tmp_path, kv_dtype="fp16")


def check_equal(model: PreTrainedModel, folder: Path, kv_dtype: str = "fp32") -> None:
    draw = random.Random(5)
    # Lengths on both sides of a prefill chunk, a KV block and a sliding window.
    prompts = [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in (1, 70, 7, 33, 16, 45)]
    references = [generate_greedily(model, ids, MAX_TOKENS, [STOP]) for ids in prompts]
    check_architecture(model.config)
    graph = to_graph(model)
    model_folder(folder).mkdir()
    ov.save_model(graph, model_folder(folder) / MODEL_NAME, compress_to_fp16=False)
    config = EngineConfig(
        engine="openvino",
        weights="fp32",
        kv_dtype=kv_dtype,
        max_context=128,
        slots=3,
        threads=1,
        prefill_chunk=16,
    )
    engine = OpenVinoEngine(
        build_pipeline(folder, config),
        stop_ids=[STOP],
        slots=config.slots,
        max_context=config.max_context,
        kv_blocks=kv_blocks(config),
        vocab_size=VOCABULARY,
    )
    requests = [GenerationRequest(ids, SamplingParameters(max_tokens=MAX_TOKENS)) for ids in prompts]
    found = drive(engine, requests, arrives_at=lambda index: 2 * index)
    assert_equal_tokens(references, [token_ids(events) for events in found])
    assert engine.counters.peak_batch == config.slots


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("Gemma2Config", {}, "soft-capped"),
        ("GptOssConfig", {}, "sinks"),
        ("BloomConfig", {}, "ALiBi"),
        ("FalconConfig", {}, "ALiBi"),
        ("CohereConfig", {}, "shown to be exact"),
        (
            "LlamaConfig",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "length",
        ),
    ],
)
def test_others_are_refused_by_name(name: str, settings: dict[str, object], reason: str) -> None:
    config = getattr(transformers, name)(**settings)
    with pytest.raises(UnsupportedCheckpoint, match=rf"{config.model_type}.*{reason}"):
        check_architecture(config)
