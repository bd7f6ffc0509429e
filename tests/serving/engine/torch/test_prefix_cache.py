"""The prefix cache: equal tokens with and without it, whatever it keeps, shares or has given up."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel

from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.engine import SlotEngine
from serving.engine.slots.runner import Chunk
from serving.engine.torch.prefix_cache import PrefixCache
from serving.engine.torch.preparation import prepare_model
from serving.engine.torch.runner import TorchRunner
from tests.equality import assert_equal_tokens
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import VOCABULARY, references, tiny_model

BLOCK = 8


class CountingRunner(TorchRunner):
    """Counts the prompt tokens that are really computed."""

    computed = 0

    def compute(self, token_ids: list[int], positions: list[int], chunks: Sequence[Chunk]) -> torch.Tensor:
        self.computed += sum(len(chunk.token_ids) for chunk in chunks)
        return super().compute(token_ids, positions, chunks)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("deepseek_v3")  # keys and values of different sizes


def make_engine(model: PreTrainedModel, blocks: int) -> tuple[SlotEngine, CountingRunner]:
    runner = CountingRunner(model, 4, 128)
    prefixes = PrefixCache(runner.cache, blocks=blocks, block_size=BLOCK)
    engine = SlotEngine(runner, stop_ids=[2], slots=4, max_context=128, prefill_chunk=16, prefixes=prefixes)
    return engine, runner


def requests(prompts: list[list[int]]) -> list[GenerationRequest]:
    return [GenerationRequest(item, SamplingParameters(max_tokens=12)) for item in prompts]


def shared_prompts(beginnings: int) -> list[list[int]]:
    """Sixteen prompts that begin in one of ``beginnings`` ways and go on differently."""
    draw = random.Random(3)

    def words(count: int) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(count)]

    heads = [words(draw.randint(20, 50)) for _ in range(beginnings)]
    return [draw.choice(heads) + words(draw.randint(1, 20)) for _ in range(16)]


# Three blocks cannot hold even one beginning whole; 200 hold everything.
@pytest.mark.parametrize("blocks", [3, 12, 200])
def test_tokens_are_the_same_with_it(model: PreTrainedModel, blocks: int) -> None:
    prompts = shared_prompts(3)
    engine, runner = make_engine(model, blocks)
    found = drive(engine, requests(prompts), arrives_at=lambda index: 2 * index)
    assert_equal_tokens(references(model, prompts, 12), [token_ids(events) for events in found])
    assert runner.computed < sum(map(len, prompts))


def test_tokens_are_the_same_where_prompts_are_computed_beside_running_rows() -> None:
    prompts = shared_prompts(3)
    model = tiny_model()
    prepare_model(model)
    engine, runner = make_engine(model, 200)
    assert runner.mixes
    found = drive(engine, requests(prompts), arrives_at=lambda index: 2 * index)
    assert_equal_tokens(references(tiny_model(), prompts, 12), [token_ids(events) for events in found])
    assert runner.computed < sum(map(len, prompts))


def test_a_shared_beginning_is_computed_once(model: PreTrainedModel) -> None:
    system = list(range(10, 10 + 5 * BLOCK))
    engine, runner = make_engine(model, 50)
    drive(engine, requests([[*system, 100]]))
    assert runner.computed == len(system) + 1
    drive(engine, requests([[*system, 200, 201]]))
    assert runner.computed == len(system) + 3
    drive(engine, requests([[*system[: 2 * BLOCK], 300, *system]]))  # only the first two blocks are the same
    assert runner.computed == len(system) + 3 + 1 + len(system)


def test_a_prompt_that_is_known_whole_still_computes_its_end(model: PreTrainedModel) -> None:
    prompt = list(range(10, 10 + 4 * BLOCK))
    engine, runner = make_engine(model, 50)
    first, second = [token_ids(drive(engine, requests([prompt]))[0]) for _ in range(2)]
    assert first == second
    assert runner.computed == len(prompt) + BLOCK


def test_wrong_keys_are_noticed(model: PreTrainedModel) -> None:
    # The negative of the equality test: blocks that were changed in the store must show.
    prompts = shared_prompts(1)[:2]
    engine, _ = make_engine(model, 50)
    drive(engine, requests(prompts[:1]))
    with torch.inference_mode():
        for keys, _ in engine._prefixes._stored:  # type: ignore[union-attr]
            keys += 1
    found = drive(engine, requests(prompts[1:]))
    with pytest.raises(AssertionError):
        assert_equal_tokens(references(model, prompts[1:], 12), [token_ids(found[0])])
