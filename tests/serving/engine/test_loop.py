"""The engine's thread: answers reach their sinks, and its death is heard by everybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import CheckpointError, RequestError, ServingError
from serving.engine.contract import TokenEvent
from serving.engine.loop import EngineFailure, EngineLoop
from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.engine import SlotEngine
from serving.engine.text_stream import Delta
from serving.engine.torch.runner import TorchRunner
from tests.tiny_models import build_tiny_llama


class Recorder:
    """A sink that remembers and can be waited for."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.error: Exception | None = None
        self.ended = threading.Event()

    def on_delta(self, delta: Delta) -> None:
        self.deltas.append(delta)
        if delta.finish_reason:
            self.ended.set()

    def on_error(self, error: Exception) -> None:
        self.error = error
        self.ended.set()

    @property
    def token_ids(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.token_ids]


class BreakingEngine(SlotEngine):
    """Raises when told to: the fault a real engine does not show on demand."""

    broken = False

    def step(self) -> Sequence[TokenEvent]:
        if self.broken:
            raise RuntimeError("device lost")
        return super().step()


@pytest.fixture
def engine(tiny_tokenizer: PreTrainedTokenizerFast) -> BreakingEngine:
    torch.set_num_threads(1)
    model = build_tiny_llama(tiny_tokenizer, max_position_embeddings=2048)
    runner = TorchRunner(model, slots=2, max_context=2048)
    return BreakingEngine(runner, stop_ids=[], slots=2, max_context=2048, prefill_chunk=64)


@pytest.fixture
def loop(engine: BreakingEngine, tiny_tokenizer: PreTrainedTokenizerFast) -> EngineLoop:
    loop = EngineLoop(lambda: engine, tiny_tokenizer)
    loop.start()
    return loop


def request(max_tokens: int = 10, **options: object) -> GenerationRequest:
    return GenerationRequest([5, 6], SamplingParameters(max_tokens=max_tokens), **options)  # type: ignore[arg-type]


def test_many_threads_submit_and_all_are_answered(loop: EngineLoop) -> None:
    sinks = [Recorder() for _ in range(12)]
    threads = [threading.Thread(target=loop.submit, args=(request(), sink)) for sink in sinks]
    for thread in threads:
        thread.start()
    for sink in sinks:
        assert sink.ended.wait(30)
        assert len(sink.token_ids) == 10
    loop.close()
    assert loop.running == loop.waiting == 0


def test_waiting_for_a_slot(loop: EngineLoop) -> None:
    sinks = [Recorder(), Recorder()]
    tickets = [loop.submit(request(1500), sink) for sink in sinks]
    assert not loop.wait_for_free_slot(timeout=0.05)
    loop.cancel(tickets[0])
    assert loop.wait_for_free_slot(timeout=30)
    assert sinks[0].ended.wait(30)
    assert sinks[0].deltas[-1].finish_reason == "cancelled"
    loop.cancel(tickets[0])  # again: nothing happens
    loop.cancel(tickets[1])
    loop.close()
    assert sum(bool(delta.finish_reason) for delta in sinks[0].deltas) == 1


def test_a_request_the_engine_refuses_fails_alone(loop: EngineLoop) -> None:
    refused, sound = Recorder(), Recorder()
    loop.submit(GenerationRequest([5] * 3000), refused)
    loop.submit(request(), sound)
    assert refused.ended.wait(30)
    assert isinstance(refused.error, RequestError)
    assert sound.ended.wait(30)
    assert len(sound.token_ids) == 10
    loop.close()


def test_a_sink_that_fails_loses_its_own_request_only(loop: EngineLoop) -> None:
    class Failing(Recorder):
        def on_delta(self, delta: Delta) -> None:
            raise OSError("connection gone")

    sound = Recorder()
    loop.submit(request(1500), Failing())
    loop.submit(request(), sound)
    assert sound.ended.wait(30)
    deadline = time.monotonic() + 30
    while loop.running:
        assert time.monotonic() < deadline, "the failed sink's slot is still taken"
        time.sleep(0.01)
    loop.close()


def test_a_dead_engine_answers_everybody_and_refuses_the_rest(
    engine: BreakingEngine, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    failures: list[EngineFailure] = []
    loop = EngineLoop(lambda: engine, tiny_tokenizer, on_failure=failures.append)
    loop.start()
    sinks = [Recorder() for _ in range(4)]  # two run, two wait
    for sink in sinks:
        loop.submit(request(1500), sink)
    engine.broken = True
    for sink in sinks:
        assert sink.ended.wait(30)
        assert isinstance(sink.error, EngineFailure)
        assert "device lost" in str(sink.error)
    assert loop.wait_for_free_slot(timeout=30)  # nobody waits for a dead engine
    with pytest.raises(EngineFailure, match="device lost"):
        loop.submit(request(), Recorder())
    assert len(failures) == 1
    assert loop.failure is failures[0]


def test_nobody_waits_while_the_engine_takes_a_request(
    engine: BreakingEngine, loop: EngineLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = threading.Event(), threading.Event()
    submit = engine.submit

    def slowly(one: GenerationRequest) -> int:
        entered.set()
        assert gate.wait(60)
        return submit(one)

    monkeypatch.setattr(engine, "submit", slowly)
    sinks = [Recorder() for _ in range(3)]
    loop.submit(request(), sinks[0])
    assert entered.wait(30)
    others = threading.Thread(target=lambda: [loop.submit(request(), sink) for sink in sinks[1:]])
    others.start()
    others.join(30)
    try:
        assert not others.is_alive()
        assert not loop.has_free_slot()  # all three count, wherever they are
    finally:
        gate.set()
    for sink in sinks:
        assert sink.ended.wait(30)
        assert sink.error is None
    loop.close()


def test_closing_finishes_what_is_held_and_refuses_the_new(loop: EngineLoop) -> None:
    sink = Recorder()
    loop.submit(request(200), sink)
    closer = threading.Thread(target=loop.close)
    closer.start()
    closer.join(30)
    assert len(sink.token_ids) == 200
    with pytest.raises(ServingError, match="shutting down"):
        loop.submit(request(), Recorder())


def test_closing_cancels_what_takes_too_long(loop: EngineLoop) -> None:
    sink = Recorder()
    loop.submit(request(2000), sink)
    loop.close(timeout=0.1)
    assert sink.deltas[-1].finish_reason == "cancelled"


def test_stop_words_free_the_slot(loop: EngineLoop, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    whole = Recorder()
    loop.submit(request(60), whole)
    assert whole.ended.wait(30)
    text = "".join(delta.text for delta in whole.deltas)
    word = next(text[at : at + 2] for at in range(5, 50) if "\ufffd" not in text[at : at + 2])
    cut = Recorder()
    loop.submit(request(60, stop_words=(word,)), cut)
    assert cut.ended.wait(30)
    assert "".join(delta.text for delta in cut.deltas) == text[: text.find(word)]
    assert cut.deltas[-1].finish_reason == "stop"
    loop.close()
    assert loop.running == 0


def test_the_thread_that_loads_an_engine_is_the_one_that_steps_it(
    engine: BreakingEngine, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second thread that computes would halve the speed: see the loop's module.
    threads = []

    def load() -> BreakingEngine:
        threads.append(threading.get_ident())
        return engine

    step = engine.step

    def noted_step() -> Any:
        threads.append(threading.get_ident())
        return step()

    monkeypatch.setattr(engine, "step", noted_step)
    loop = EngineLoop(load, tiny_tokenizer)
    loop.start()
    sink = Recorder()
    loop.submit(request(), sink)
    assert sink.ended.wait(30)
    loop.close()
    assert len(threads) > 2
    assert set(threads) == {threads[0]} != {threading.get_ident()}


def test_an_engine_that_cannot_be_loaded_says_why(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    def load() -> BreakingEngine:
        raise CheckpointError("no weights here")

    with pytest.raises(CheckpointError, match="no weights here"):
        EngineLoop(load, tiny_tokenizer).start()
