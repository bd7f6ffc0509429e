"""What is the openvino engine's own, beside the contract all engines share."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from checkpoints.errors import RequestError
from checkpoints.loading import load_model
from serving.engine.config import EngineConfig
from serving.engine.contract import Capacity, Engine
from serving.engine.openvino.engine import OpenVinoEngine
from serving.engine.openvino.exporting import EXPORTER
from serving.engine.openvino.pipeline import build_pipeline, kv_blocks
from serving.engine.request import GenerationRequest, SamplingParameters
from tests.serving.endpoint import sealed_llama
from tests.serving.engine.engines import drive, finish, token_ids


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    return sealed_llama(tmp_path_factory.mktemp("openvino") / "checkpoint", tiny_tokenizer)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> PreTrainedModel:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    """The converted model."""
    target = checkpoint.parent / "converted"
    shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns("*.safetensors"))
    EXPORTER.convert(checkpoint, target, settings())
    return target


def settings(**options: Any) -> EngineConfig:
    values = {"slots": 4, "max_context": 128, "prefill_chunk": 16, **options}
    return EngineConfig(engine="openvino", weights="fp32", kv_dtype="fp32", threads=1, **values)


def make_engine(folder: Path, *, stop_ids: list[int] | None = None, **options: Any) -> OpenVinoEngine:
    config = settings(**options)
    return OpenVinoEngine(
        build_pipeline(folder, config),
        stop_ids=[2] if stop_ids is None else stop_ids,
        slots=config.slots,
        max_context=config.max_context,
        kv_blocks=kv_blocks(config),
        vocab_size=320,
    )


@pytest.fixture(scope="module")
def engine(folder: Path) -> OpenVinoEngine:
    return make_engine(folder)


def prompt(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(4, 320) for _ in range(length)]


def sampled(ids: list[int], **options: float) -> GenerationRequest:
    values = {"max_tokens": 1, "temperature": 1.0, "ignore_eos": True, **options}
    return GenerationRequest(ids, SamplingParameters(**values))  # type: ignore[arg-type]


def test_filters_keep_what_they_say(engine: Engine, model: PreTrainedModel) -> None:
    ids = prompt(5)
    with torch.inference_mode():
        likely = model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1).sort(descending=True)
    probability, order = likely.values.tolist(), likely.indices.tolist()
    top_three = sum(probability[:3])

    def support(**options: float) -> set[int]:
        requests = [sampled(ids, seed=seed, **options) for seed in range(60)]
        return {token_ids(events)[0] for events in drive(engine, requests)}

    assert support(top_k=2) == set(order[:2])
    assert support(top_p=sum(probability[:2]) - 1e-3) == set(order[:2])
    assert support(min_p=probability[1] / probability[0] - 1e-3) == set(order[:2])
    assert support(min_p=1.0) == {order[0]}
    # top-p is of what top-k kept: the same share of the whole vocabulary is far more tokens.
    share = (probability[0] + probability[1] / 2) / top_three
    assert support(top_k=3, top_p=share) == set(order[:2])


def test_seeds_differ_and_large_seeds_are_accepted(engine: Engine) -> None:
    seeds = (0, 1, 2**32, 2**63, 2**64 - 1)
    found = drive(engine, [sampled([5, 6], seed=seed, max_tokens=12) for seed in seeds])
    assert len({tuple(token_ids(events)) for events in found}) == len(seeds)


def test_min_tokens_hold_back_every_stop_id(folder: Path, engine: Engine) -> None:
    (events,) = drive(
        engine, [GenerationRequest([5, 6, 7], SamplingParameters(max_tokens=8, ignore_eos=True))]
    )
    third = token_ids(events)[2]
    stopping = make_engine(folder, stop_ids=[300, third])
    stopped, held = drive(
        stopping,
        [
            GenerationRequest([5, 6, 7], SamplingParameters(max_tokens=8)),
            GenerationRequest([5, 6, 7], SamplingParameters(max_tokens=8, min_tokens=5)),
        ],
    )
    assert token_ids(stopped) == token_ids(events)[:3]
    assert finish(stopped) == "stop"
    assert len(token_ids(held)) >= 5
    assert third not in token_ids(held)[:5]


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_beyond_its_range_are_refused(engine: Engine, name: str) -> None:
    request = GenerationRequest([5], SamplingParameters(**{name: 2.5}))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=rf"{name} is 2.5.*-2.0 to 2.0.*torch"):
        engine.submit(request)


def test_an_id_that_is_no_token_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match="holds 320; accepted: token ids 0 to 319"):
        engine.submit(GenerationRequest([5, 320]))


def test_a_small_kv_pool_delays_but_changes_nothing(folder: Path, engine: Engine) -> None:
    requests = [
        GenerationRequest(prompt(60, seed), SamplingParameters(max_tokens=60, ignore_eos=True))
        for seed in range(4)
    ]
    small = make_engine(folder, kv_tokens=160)
    assert small.capacity.kv_tokens == 160 < engine.capacity.kv_tokens
    most = 0
    handles = [small.submit(request) for request in requests]
    found: dict[int, list[int]] = {handle: [] for handle in handles}
    while small.has_work:
        for event in small.step():
            assert event.error is None
            found[event.handle] += event.token_ids
        most = max(most, small.counters.kv_tokens)
    assert 0 < most <= 160
    assert small.counters.kv_tokens == 0
    expected = [token_ids(events) for events in drive(engine, requests)]
    assert [found[handle] for handle in handles] == expected


def test_what_the_kv_pool_cannot_hold_is_refused_alone(folder: Path) -> None:
    # The config forbids kv_tokens below max_context; an engine built otherwise says so all the same.
    engine = make_engine(folder, kv_tokens=128)
    engine._capacity = Capacity(slots=4, max_context=512, kv_tokens=128)
    with pytest.raises(RequestError, match=r"takes 304 tokens.*kv_tokens=128"):
        engine.submit(GenerationRequest(prompt(300), SamplingParameters(max_tokens=4)))
    (short,) = drive(
        engine, [GenerationRequest(prompt(20), SamplingParameters(max_tokens=4, ignore_eos=True))]
    )
    assert len(token_ids(short)) == 4


def test_a_pipeline_that_gives_up_fails_its_requests_and_goes_on(folder: Path) -> None:
    engine = make_engine(folder, kv_tokens=128)
    # Let it believe in a pool of 512 tokens, so that nothing is held back.
    engine._capacity = Capacity(slots=4, max_context=512, kv_tokens=512)
    engine._kv_blocks = 16
    (long,) = drive(engine, [GenerationRequest(prompt(300), SamplingParameters(max_tokens=4))])
    assert isinstance(long[-1].error, RequestError)
    assert "KV cache" in str(long[-1].error)
    (short,) = drive(
        engine, [GenerationRequest(prompt(20), SamplingParameters(max_tokens=4, ignore_eos=True))]
    )
    assert len(token_ids(short)) == 4


def test_counters_tell_what_ran(engine: Engine) -> None:
    engine.counters.reset()
    ids = [prompt(length, length) for length in (3, 40, 17, 5, 9)]
    found = drive(engine, [GenerationRequest(item, SamplingParameters(max_tokens=10)) for item in ids])
    counters = engine.counters
    assert counters.prompt_tokens == sum(map(len, ids))
    assert counters.completion_tokens == sum(len(token_ids(events)) for events in found)
    assert counters.peak_batch == 4
    assert counters.decode_seconds > 0
    assert counters.steps >= 10
