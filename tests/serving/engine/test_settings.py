"""What a request, an engine.json and a model must look like, and what is said when they do not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import transformers

from checkpoints.errors import ConfigError, RequestError, ServingError, UnsupportedCheckpoint
from serving.engine.config import EngineConfig
from serving.engine.contract import Counters
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.scheduler import Scheduler, Sequence
from serving.engine.torch.support import check_supported


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 2.5),
        ("min_tokens", -1),
        ("temperature", float("nan")),
        ("temperature", 5.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", float("inf")),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", "high"),
        ("frequency_penalty", -11),
        ("seed", -1),
        ("ignore_eos", 1),
    ],
)
def test_sampling_parameters_name_what_is_wrong(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name):
        SamplingParameters(**{name: value})


def test_stop_words_are_checked() -> None:
    with pytest.raises(RequestError, match="stop_words has 17"):
        GenerationRequest([1], stop_words=("x",) * 17)
    with pytest.raises(RequestError, match="empty entry"):
        GenerationRequest([1], stop_words=("",))


def test_engine_json_round_trip_and_refusals(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    config = EngineConfig(weights="nf4", max_context=64, kv_dtype="bf16", threads=2)
    config.write(path)
    assert EngineConfig.read(path) == config
    values = json.loads(path.read_text())
    for changed, message in (
        ({"contract_version": 99}, "contract version 99"),
        ({"wheels": 3}, "unknown fields wheels"),
    ):
        path.write_text(json.dumps({**values, **changed}))
        with pytest.raises(ServingError, match=message):
            EngineConfig.read(path)
    path.write_text(json.dumps({**values, "slots": 0}))
    with pytest.raises(ConfigError, match="slots is 0"):
        EngineConfig.read(path)
    path.write_text("{")
    with pytest.raises(ServingError, match="not JSON"):
        EngineConfig.read(path)
    path.unlink()
    with pytest.raises(ServingError, match="missing"):
        EngineConfig.read(path)


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("BloomConfig", {}, "ALiBi"),
        ("Gemma3nTextConfig", {"sliding_window": 64}, "window of 64"),
        ("GPTNeoConfig", {}, "local attention"),
        ("Llama4TextConfig", {"attention_chunk_size": 64}, "in chunks of 64"),
        ("MambaConfig", {}, "layers of type"),
        (
            "LlamaConfig",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "depends on the other requests",
        ),
    ],
)
def test_models_that_would_be_served_wrongly_are_refused(
    name: str, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=reason):
        check_supported(getattr(transformers, name)(**settings), max_context=128)


def test_models_that_are_served() -> None:
    for name, settings in (
        ("LlamaConfig", {}),
        ("Qwen2Config", {"sliding_window": 64, "use_sliding_window": False}),
        ("MistralConfig", {"sliding_window": 4096}),
        ("MistralConfig", {"sliding_window": 64}),
        ("Gemma3TextConfig", {"sliding_window": 64}),
        ("GPT2Config", {}),
    ):
        check_supported(getattr(transformers, name)(**settings), max_context=128)


def test_slots_stay_compact_whoever_leaves() -> None:
    draw = random.Random(1)
    cache: list[int | None] = [None] * 4  # whose keys and values a row holds
    counters = Counters()

    def move(source: int, target: int) -> None:
        cache[target] = cache[source]

    scheduler = Scheduler(4, counters, move)
    alive: list[Sequence] = []
    for handle in range(300):
        sequence = Sequence(handle, GenerationRequest([1, 2, 3]), 10, draw)
        scheduler.add(sequence)
        alive.append(sequence)
        if (work := scheduler.next_prefill()) is not None:
            row, admitted = work
            if admitted.computed == 0:
                cache[row] = admitted.handle
            admitted.computed += draw.choice([1, 3])
        if draw.random() < 0.8:
            scheduler.remove(alive.pop(draw.randrange(len(alive))))
        decoding = scheduler.decoding()
        assert [cache[row] for row in range(len(decoding))] == [one.handle for one in decoding]
        assert not any(one.in_prefill for one in decoding)
        assert counters.running + counters.waiting == len(alive)
    assert counters.running == 4
