"""What every engine owes, whatever computes: one suite for all engines and checkpoints, in fp32.

``test_contract.py`` runs it on a tiny model, ``test_contract_real.py`` on a real one. They bring the
fixtures ``checkpoint``, ``tokenizer`` and ``engine``; ``max_context`` is 128 and there are 4 slots.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from checkpoints.errors import RequestError
from checkpoints.loading import load_model
from checkpoints.manifest import read_manifest
from serving.engine.contract import Engine
from serving.engine.loop import EngineLoop
from serving.engine.request import GenerationRequest, SamplingParameters
from tests.equality import Reference, assert_equal_tokens, generate_greedily
from tests.serving.engine.engines import drive, finish, token_ids
from tests.serving.engine.test_delivery import Recorder

WAIT = 60


def greedy(ids: list[int], max_tokens: int, **options: Any) -> GenerationRequest:
    return GenerationRequest(ids, SamplingParameters(max_tokens=max_tokens, **options))


class ContractSuite:
    """The tests. A subclass says how much is computed, and of what."""

    SHORTER: ClassVar[int] = 1
    """What the number of requests and of tokens is divided by, for a model that takes its time."""

    def prompts(self, count: int, longest: int = 60) -> list[list[int]]:
        """Return prompts of different lengths."""
        draw = random.Random(5)
        return [[draw.randrange(4, 320) for _ in range(draw.randint(1, longest))] for _ in range(count)]

    def shorter(self, number: int) -> int:
        return number // self.SHORTER

    @pytest.fixture
    def prompt(self) -> list[int]:
        """Any prompt whose greedy continuation is text."""
        return [5, 6, 7, 8]

    @pytest.fixture
    def repetitive(self) -> list[int]:
        """A prompt that the model goes on repeating."""
        return [5, 5, 5]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, checkpoint: Path) -> PreTrainedModel:
        return load_model(checkpoint)

    @pytest.fixture(scope="class")
    @classmethod
    def stop(cls, checkpoint: Path) -> list[int]:
        return read_manifest(checkpoint).tokens.stop

    @pytest.fixture(autouse=True)
    def _idle(self, engine: Engine) -> Iterator[None]:
        """Every test finds and leaves the engine with nothing to do."""
        yield
        assert not engine.has_work
        assert (engine.counters.running, engine.counters.waiting, engine.counters.kv_tokens) == (0, 0, 0)

    def references(
        self, model: PreTrainedModel, ids: list[list[int]], count: int, stop: list[int]
    ) -> list[Reference]:
        return [generate_greedily(model, item, count, stop) for item in ids]

    def test_requests_join_and_leave_mid_flight(
        self, engine: Engine, model: PreTrainedModel, stop: list[int]
    ) -> None:
        ids, tokens = self.prompts(self.shorter(16)), self.shorter(24)
        before = replace(engine.counters)
        apart = self.shorter(3)
        found = drive(engine, [greedy(item, tokens) for item in ids], arrives_at=lambda index: apart * index)
        assert_equal_tokens(
            self.references(model, ids, tokens, stop), [token_ids(events) for events in found]
        )
        assert all(finish(events) in ("stop", "length") for events in found)
        assert all(sum(event.admitted for event in events) == 1 for events in found)
        assert engine.counters.peak_batch == 4
        generated = engine.counters.completion_tokens - before.completion_tokens
        assert generated == sum(len(token_ids(events)) for events in found)
        assert engine.counters.steps > before.steps
        assert engine.counters.decode_seconds > before.decode_seconds

    def test_cancelling_frees_the_slot_and_leaves_the_others_alone(
        self, engine: Engine, model: PreTrainedModel, stop: list[int]
    ) -> None:
        ids, tokens = self.prompts(7), self.shorter(20)
        # One that runs, one that waits, and then both again: unknown handles are ignored.
        found = drive(engine, [greedy(item, tokens) for item in ids], cancel_at={0: 3, 6: 1})
        kept = range(1, 6)
        assert_equal_tokens(
            self.references(model, [ids[index] for index in kept], tokens, stop),
            [token_ids(found[index]) for index in kept],
        )
        assert token_ids(found[6]) == []
        assert len(token_ids(found[0])) < tokens
        engine.cancel(10**6)

    def test_a_prompt_that_does_not_fit_is_refused_alone(self, engine: Engine) -> None:
        with pytest.raises(RequestError, match="128 tokens and the context holds 128"):
            engine.submit(greedy([5] * 128, 4))
        (events,) = drive(engine, [greedy([5] * 127, 40, ignore_eos=True)])
        assert len(token_ids(events)) == 1
        assert finish(events) == "length"

    def test_limits(self, engine: Engine, model: PreTrainedModel) -> None:
        ids, tokens = self.prompts(3, longest=10), self.shorter(30)
        at_least, at_most = self.shorter(12), self.shorter(90)
        forced, short, held = drive(
            engine,
            [
                greedy(ids[0], tokens, ignore_eos=True),
                greedy(ids[1], 1),
                greedy(ids[2], at_most, min_tokens=at_least),
            ],
        )
        assert len(token_ids(forced)) == tokens
        assert finish(forced) == "length"
        assert len(token_ids(short)) == 1
        assert at_least <= len(token_ids(held)) <= at_most
        assert_equal_tokens(self.references(model, ids[:1], tokens, []), [token_ids(forced)])

    @pytest.mark.parametrize(("top_p", "top_k"), [(0.9, 50), (1.0, 0)], ids=["filtered", "plain"])
    def test_one_seed_gives_one_text_whatever_runs_beside_it(
        self, engine: Engine, prompt: list[int], top_p: float, top_k: int
    ) -> None:
        def sampled(seed: int, top_p: float, top_k: int, temperature: float = 1.0) -> GenerationRequest:
            sampling = SamplingParameters(
                max_tokens=self.shorter(20),
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                seed=seed,
                ignore_eos=True,
            )
            return GenerationRequest(prompt, sampling)

        (alone,) = drive(engine, [sampled(7, top_p, top_k)])
        others = [sampled(index, top_p=0.9, top_k=50, temperature=2.0) for index in range(3)]
        beside = drive(engine, [*others, sampled(7, top_p, top_k)], arrives_at=lambda index: index)
        assert token_ids(beside[-1]) == token_ids(alone)
        (other,) = drive(engine, [sampled(8, top_p, top_k)])
        assert token_ids(other) != token_ids(alone)

    def test_log_probs_are_the_models_own(
        self, engine: Engine, model: PreTrainedModel, prompt: list[int]
    ) -> None:
        sampling = SamplingParameters(max_tokens=5, ignore_eos=True)
        (events,) = drive(engine, [GenerationRequest(prompt, sampling, return_log_probs=True)])
        found, length = token_ids(events), len(prompt)
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *found]])).logits[0].float()
        expected = logits.log_softmax(dim=-1)[range(length - 1, length - 1 + len(found)), found]
        reported = torch.tensor([value for event in events for value in event.log_probs])
        torch.testing.assert_close(reported, expected, atol=1e-3, rtol=0)

    def test_repetition_penalty_is_that_of_generate(self, engine: Engine, model: PreTrainedModel) -> None:
        ids, tokens = self.prompts(4, longest=20), self.shorter(16)
        requests = [greedy(item, tokens, repetition_penalty=1.7, ignore_eos=True) for item in ids]
        for item, events in zip(ids, drive(engine, requests), strict=True):
            expected = model.generate(
                torch.tensor([item]),
                max_new_tokens=tokens,
                do_sample=False,
                repetition_penalty=1.7,
                eos_token_id=None,
                pad_token_id=0,
            )
            assert token_ids(events) == expected[0, len(item) :].tolist()

    def test_frequency_and_presence_penalties_end_a_loop(self, engine: Engine, repetitive: list[int]) -> None:
        def repeats(**penalty: float) -> int:
            (events,) = drive(engine, [greedy(repetitive, self.shorter(40), ignore_eos=True, **penalty)])
            found = token_ids(events)
            return len(found) - len(set(found))

        plain = repeats()
        assert repeats(frequency_penalty=2.0) < plain
        assert repeats(presence_penalty=2.0) < plain

    @pytest.fixture
    def loop(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
    ) -> EngineLoop:
        loop = EngineLoop(lambda: engine, tokenizer)
        monkeypatch.setattr(engine, "close", lambda: None)  # all tests share the engine
        loop.start()
        return loop

    def test_text_is_whole_in_any_language(
        self, loop: EngineLoop, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        texts = ["你好，世界。", "🙂🚢 naïve", "def add(a, b):", "今天的天气很好"]
        sinks = [Recorder() for _ in texts]
        for text, sink in zip(texts, sinks, strict=True):
            ids = tokenizer.encode(text, add_special_tokens=False)
            loop.submit(greedy(ids, self.shorter(40), ignore_eos=True), sink)
        for sink in sinks:
            assert sink.ended.wait(WAIT)
            found = [token for delta in sink.deltas for token in delta.token_ids]
            shown = "".join(delta.text for delta in sink.deltas)
            assert shown == tokenizer.decode(found, skip_special_tokens=True)
        loop.close()

    def test_a_stop_word_across_tokens_frees_the_slot(self, loop: EngineLoop, prompt: list[int]) -> None:
        whole = Recorder()
        loop.submit(greedy(prompt, self.shorter(60), ignore_eos=True), whole)
        assert whole.ended.wait(WAIT)
        text = "".join(delta.text for delta in whole.deltas)
        word = next(text[at : at + 3] for at in range(5, len(text) - 3) if "\ufffd" not in text[at : at + 3])
        cut = Recorder()
        request = GenerationRequest(
            prompt, SamplingParameters(max_tokens=120, ignore_eos=True), stop_words=(word,)
        )
        loop.submit(request, cut)
        assert cut.ended.wait(WAIT)
        assert "".join(delta.text for delta in cut.deltas) == text[: text.find(word)]
        assert cut.deltas[-1].finish_reason == "stop"
        loop.close()
        assert loop.running == 0

    def test_closing_drains(self, loop: EngineLoop, prompt: list[int]) -> None:
        sinks, tokens = [Recorder() for _ in range(6)], self.shorter(30)  # two of them wait for a slot
        for sink in sinks:
            loop.submit(greedy(prompt, tokens, ignore_eos=True), sink)
        closer = threading.Thread(target=loop.close)
        closer.start()
        closer.join(WAIT)
        assert [sum(sink.sizes) for sink in sinks] == [tokens] * 6
