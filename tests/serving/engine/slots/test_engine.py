"""The slot engine with a tiny Llama, however requests overlap: batching, sampling, limits, errors."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from checkpoints.errors import RequestError
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.engine import SlotEngine
from tests.equality import assert_equal_tokens, generate_greedily
from tests.serving.engine.engines import drive as run
from tests.serving.engine.engines import token_ids as tokens
from tests.serving.engine.torch.architectures import (
    VOCABULARY,
    make_engine,
    prompts,
    references,
    tiny_model,
)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model()


@pytest.fixture
def engine(model: PreTrainedModel) -> SlotEngine:
    return make_engine(model)


def test_a_shifted_cache_is_noticed(model: PreTrainedModel, engine: SlotEngine) -> None:
    # The negative of the test above: with the first cached position overwritten, it must fail.
    ids = prompts(4)
    expected = references(model, ids, 24)
    handles = [engine.submit(GenerationRequest(item, SamplingParameters(max_tokens=24))) for item in ids]
    found: dict[int, list[int]] = {handle: [] for handle in handles}
    while engine.has_work:
        for event in engine.step():
            found[event.handle] += event.token_ids
        with torch.inference_mode():
            for layer in engine._runner.cache.layers:
                layer.keys[:, :, 0] = 1.0
    with pytest.raises(AssertionError):
        assert_equal_tokens(expected, list(found.values()))


def test_a_long_prompt_is_computed_in_chunks_beside_running_streams(
    model: PreTrainedModel, engine: SlotEngine
) -> None:
    short, long = [5, 6, 7], prompts(1, longest=100)[0] * 3
    long = long[:100]
    first = engine.submit(GenerationRequest(short, SamplingParameters(max_tokens=60, ignore_eos=True)))
    engine.step()
    second = engine.submit(GenerationRequest(long, SamplingParameters(max_tokens=4, ignore_eos=True)))
    between = 0
    found: list[int] = []
    while not found:
        events = engine.step()
        between += sum(event.handle == first for event in events)
        found = [token for event in events if event.handle == second for token in event.token_ids]
    assert between >= 100 // 16
    assert_equal_tokens([generate_greedily(model, long, 1, [])], [found[:1]])


@pytest.mark.parametrize("prepare", [False, True])
def test_a_prompt_a_little_longer_than_a_chunk_gets_one_first_token(prepare: bool) -> None:
    # Its first half leaves room for the second in the same step, which needs what the first computes.
    (ids,) = prompts(1, longest=100)
    ids = (ids * 130)[:130]
    expected = references(tiny_model(), [ids], 6)
    engine = make_engine(tiny_model(), prepare=prepare, prefill_chunk=128, max_context=200)
    found = run(engine, [GenerationRequest(ids, SamplingParameters(max_tokens=6))])
    assert_equal_tokens(expected, [tokens(events) for events in found])
    assert sum(event.admitted for event in found[0]) == 1


def test_streams_go_on_while_prompts_are_computed_where_one_pass_does_both() -> None:
    engine = make_engine(tiny_model(), prepare=True, prefill_chunk=40)
    runs = GenerationRequest([5, 6, 7], SamplingParameters(max_tokens=90, ignore_eos=True))
    first = engine.submit(runs)
    while not engine.counters.steps:
        engine.step()
    ids = prompts(3, longest=100)
    ids = [item * (1 + 60 // len(item)) for item in ids]
    late = [engine.submit(GenerationRequest(item, SamplingParameters(max_tokens=6))) for item in ids]
    found: dict[int, list[int]] = {handle: [] for handle in late}
    prompts_before = engine.counters.prompt_tokens
    both = 0
    while engine.counters.prompt_tokens < prompts_before + sum(len(item) for item in ids):
        before = engine.counters.prompt_tokens
        events = engine.step()
        assert any(event.handle == first and event.token_ids for event in events)  # in every step
        both += engine.counters.prompt_tokens > before
        for event in events:
            found.setdefault(event.handle, []).extend(event.token_ids)
    assert both >= 3
    while engine.has_work:
        for event in engine.step():
            found.setdefault(event.handle, []).extend(event.token_ids)
    assert_equal_tokens(references(tiny_model(), ids, 6), [found[handle] for handle in late])


def test_cancelling_frees_the_slot_and_leaves_the_others_alone(
    model: PreTrainedModel, engine: SlotEngine
) -> None:
    ids = prompts(6)
    handles = [engine.submit(GenerationRequest(item, SamplingParameters(max_tokens=20))) for item in ids]
    found: dict[int, list[int]] = {handle: [] for handle in handles}
    for step in range(200):
        if step == 2:
            engine.cancel(handles[0])  # runs
            engine.cancel(handles[5])  # waits
        for event in engine.step():
            found[event.handle] += event.token_ids
        if not engine.has_work:
            break
    kept = [1, 2, 3, 4]
    assert_equal_tokens(
        references(model, [ids[index] for index in kept], 20), [found[handles[index]] for index in kept]
    )
    assert len(found[handles[5]]) == 0
    assert engine.counters.running == 0


def test_cancelling_during_prefill(model: PreTrainedModel) -> None:
    engine = make_engine(model, prefill_chunk=8)
    running = engine.submit(GenerationRequest([9, 9], SamplingParameters(max_tokens=30, ignore_eos=True)))
    engine.step()
    prefilling = engine.submit(GenerationRequest(list(range(3, 60)), SamplingParameters(max_tokens=5)))
    engine.step()
    engine.cancel(prefilling)
    late = engine.submit(GenerationRequest([7, 8, 9], SamplingParameters(max_tokens=10, ignore_eos=True)))
    found: dict[int, list[int]] = {running: [], late: []}
    while engine.has_work:
        for event in engine.step():
            found[event.handle] += event.token_ids
    assert_equal_tokens([generate_greedily(model, [7, 8, 9], 10, [])], [found[late]])


def test_one_seed_gives_one_text_whatever_runs_beside_it(model: PreTrainedModel) -> None:
    sampling = SamplingParameters(max_tokens=20, temperature=1.0, top_p=0.9, top_k=50, seed=7)
    request = GenerationRequest([5, 6, 7, 8], sampling)
    others = [
        GenerationRequest(item, SamplingParameters(max_tokens=20, temperature=2.0, seed=index))
        for index, item in enumerate(prompts(3))
    ]
    alone = tokens(run(make_engine(model), [request])[0])
    beside = tokens(run(make_engine(model), [*others, request], arrives_at=lambda index: index)[-1])
    assert alone == beside
    other_seed = GenerationRequest([5, 6, 7, 8], SamplingParameters(max_tokens=20, temperature=1.0, seed=8))
    assert tokens(run(make_engine(model), [other_seed])[0]) != alone


def test_min_tokens_and_ignore_eos(model: PreTrainedModel) -> None:
    # Every token ends the request, so without min_tokens there is exactly one.
    everything = list(range(VOCABULARY))
    engine = make_engine(model, stop_ids=everything)
    assert len(tokens(run(engine, [GenerationRequest([5])])[0])) == 1
    ignoring = GenerationRequest([5], SamplingParameters(max_tokens=6, ignore_eos=True))
    (events,) = run(engine, [ignoring])
    assert len(tokens(events)) == 6
    assert events[-1].finish == "length"
    likely = tokens(run(make_engine(model, stop_ids=[]), [GenerationRequest([5])])[0])[0]
    stopping = make_engine(model, stop_ids=[likely])
    assert tokens(run(stopping, [GenerationRequest([5])])[0]) == [likely]
    held = tokens(run(stopping, [GenerationRequest([5], SamplingParameters(min_tokens=4, max_tokens=8))])[0])
    assert len(held) >= 4
    assert likely not in held[:4]


def test_log_probs_are_the_models_own(model: PreTrainedModel, engine: SlotEngine) -> None:
    sampling = SamplingParameters(max_tokens=5, repetition_penalty=1.5, ignore_eos=True)
    (events,) = run(engine, [GenerationRequest([5, 6], sampling, return_log_probs=True)])
    found = tokens(events)
    with torch.inference_mode():
        logits = model(torch.tensor([[5, 6, *found]])).logits[0].float()
    expected = logits.log_softmax(dim=-1)[range(1, 1 + len(found)), found]
    reported = torch.tensor([value for event in events for value in event.log_probs])
    torch.testing.assert_close(reported, expected, atol=1e-4, rtol=0)


def test_penalties_equal_those_of_generate(model: PreTrainedModel, engine: SlotEngine) -> None:
    ids = prompts(4, longest=20)
    requests = [
        GenerationRequest(item, SamplingParameters(max_tokens=16, repetition_penalty=1.7, ignore_eos=True))
        for item in ids
    ]
    # A plain request that leaves early makes rows move while they are penalized.
    found = run(engine, [GenerationRequest([4], SamplingParameters(max_tokens=3)), *requests])[1:]
    for item, events in zip(ids, found, strict=True):
        expected = model.generate(
            torch.tensor([item]),
            max_new_tokens=16,
            do_sample=False,
            repetition_penalty=1.7,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert tokens(events) == expected[0, len(item) :].tolist()


def test_frequency_penalty_ends_a_loop(model: PreTrainedModel, engine: SlotEngine) -> None:
    def repeats(**penalty: float) -> int:
        sampling = SamplingParameters(max_tokens=40, ignore_eos=True, **penalty)
        found = tokens(run(engine, [GenerationRequest([5, 5, 5], sampling)])[0])
        return len(found) - len(set(found))

    assert repeats(frequency_penalty=10.0) < repeats()
    assert repeats(presence_penalty=10.0) < repeats()


def test_a_prompt_longer_than_the_context_is_refused(engine: SlotEngine) -> None:
    with pytest.raises(RequestError, match="128 tokens and the context holds 128"):
        engine.submit(GenerationRequest([5] * 128))
    handle = engine.submit(GenerationRequest([5] * 127))
    events = []
    while engine.has_work:
        events += engine.step()
    assert {event.handle for event in events} == {handle}
    assert events[-1].finish in ("length", "stop")


def test_nan_logits_fail_only_their_request(model: PreTrainedModel) -> None:
    broken = tiny_model()
    with torch.no_grad():
        broken.get_input_embeddings().weight[300] = torch.nan
        broken.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    engine = make_engine(broken)
    requests = [
        GenerationRequest([5, 6], SamplingParameters(max_tokens=8, temperature=1.0, seed=1, ignore_eos=True)),
        GenerationRequest([5, 300], SamplingParameters(max_tokens=8, temperature=1.0, top_p=0.5)),
    ]
    sound, failed = run(engine, requests)
    assert failed[-1].error is not None
    assert "NaN" in str(failed[-1].error)
    assert len(tokens(sound)) >= 1
