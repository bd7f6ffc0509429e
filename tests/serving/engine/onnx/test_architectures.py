"""Every architecture the onnx engine lists, exported and served, against ``generate``; in fp32."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import transformers

from checkpoints.errors import UnsupportedCheckpoint
from serving.engine.onnx.graph import write_graph
from serving.engine.onnx.runner import OnnxRunner
from serving.engine.onnx.session import open_session
from serving.engine.onnx.support import MODEL_TYPES, check_architecture
from serving.engine.onnx.verification import check_file
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.engine import SlotEngine
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import ARCHITECTURES, VOCABULARY, config_class, tiny_model

MAX_TOKENS = 20
STOP = 2
REFUSED = {"gptj", "codegen", "deepseek", "deepseek_v2"}
"""Served by the torch engine, not by this one."""
QUICK = {"deepseek_v3", "gpt2", "gpt_oss", "mistral with a window"}
"""One of each kind of layer; the others take minutes together."""
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in ARCHITECTURES
    if name not in REFUSED
]


def model_type(name: str) -> str:
    return str(config_class(name).model_type)


def test_every_listed_architecture_is_tested() -> None:
    assert {model_type(name) for name in ARCHITECTURES if name not in REFUSED} == MODEL_TYPES


@pytest.mark.parametrize("name", NAMES)
def test_overlapping_requests_equal_generate(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    check_architecture(model.config)
    draw = random.Random(5)
    # Lengths on both sides of a prefill chunk and of a sliding window.
    prompts = [[draw.randrange(3, VOCABULARY) for _ in range(length)] for length in (1, 70, 7, 33, 16, 45)]
    references = [generate_greedily(model, ids, MAX_TOKENS, [STOP]) for ids in prompts]
    write_graph(model, tmp_path, pack_head=False)
    check_file(tmp_path)
    engine = SlotEngine(
        OnnxRunner(open_session(tmp_path, 1), slots=3, max_context=128),
        stop_ids=[STOP],
        slots=3,
        max_context=128,
        prefill_chunk=16,
    )
    requests = [GenerationRequest(ids, SamplingParameters(max_tokens=MAX_TOKENS)) for ids in prompts]
    found = drive(engine, requests, arrives_at=lambda index: 2 * index)
    assert_equal_tokens(references, [token_ids(events) for events in found])
    assert engine.counters.peak_batch == 3


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("BloomConfig", {}, "shown equal for"),
        ("DeepseekV2Config", {}, "shown equal for"),
        ("GPTJConfig", {}, "shown equal for"),
        (
            "LlamaConfig",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "length of the text",
        ),
    ],
)
def test_others_are_refused_by_name(name: str, settings: dict[str, object], reason: str) -> None:
    config = getattr(transformers, name)(**settings)
    with pytest.raises(UnsupportedCheckpoint, match=rf"'{config.model_type}'.*{reason}"):
        check_architecture(config)
