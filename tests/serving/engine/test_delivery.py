"""What leaves the engine's thread reaches the sinks in order, whole, and in the pieces asked for."""

from __future__ import annotations

import threading

import pytest
from transformers import PreTrainedTokenizerFast

from serving.engine.contract import TokenEvent
from serving.engine.delivery import Delivery, Ticket
from serving.engine.observations import Observations
from serving.engine.request import GenerationRequest
from serving.engine.text_stream import Delta, TextStream

WAIT = 30


class Recorder:
    """A sink that can be made to wait, so that results pile up behind it."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.errors: list[Exception] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.ended = threading.Event()

    def on_delta(self, delta: Delta) -> None:
        self.entered.set()
        assert self.gate.wait(WAIT)
        self.deltas.append(delta)
        if delta.finish_reason:
            self.ended.set()

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)
        self.ended.set()

    @property
    def sizes(self) -> list[int]:
        return [len(delta.token_ids) for delta in self.deltas]


class Setup:
    """A running delivery and one ticket."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, stream_interval: int = 1, stop_words: tuple[str, ...] = ()
    ) -> None:
        self.observations = Observations()
        self.stopped: list[Ticket] = []
        self.delivery = Delivery(
            stream_interval=stream_interval, on_stop=self.stopped.append, observations=self.observations
        )
        self.delivery.start()
        self.sink = Recorder()
        request = GenerationRequest([5, 6], stop_words=stop_words)
        self.ticket = Ticket(request, self.sink, TextStream(tokenizer, stop_words, 2))

    def post(self, *token_ids: int, **options: object) -> None:
        self.delivery.post([(self.ticket, TokenEvent(0, list(token_ids), **options))])  # type: ignore[arg-type]

    def settle(self) -> None:
        """Wait until everything posted so far was handed over."""
        done = threading.Event()
        self.delivery.call(done.set)
        assert done.wait(WAIT)


def test_tokens_leave_one_by_one_when_there_is_time(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    setup = Setup(tiny_tokenizer)
    for token in range(10, 14):
        setup.post(token)
        setup.settle()
    setup.post(14, finish="length")
    assert setup.sink.ended.wait(WAIT)
    assert setup.sink.sizes == [1, 1, 1, 1, 1]


def test_tokens_that_piled_up_leave_together(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    setup = Setup(tiny_tokenizer)
    setup.sink.gate.clear()
    setup.post(10)
    assert setup.sink.entered.wait(WAIT)
    for token in range(11, 20):
        setup.post(token, log_probs=[-float(token)])
    setup.post(20, finish="stop")
    setup.sink.gate.set()
    assert setup.sink.ended.wait(WAIT)
    assert setup.sink.sizes == [1, 10]
    assert setup.sink.deltas[1].token_ids == list(range(11, 21))
    assert setup.sink.deltas[1].log_probs == [-float(token) for token in range(11, 20)]
    assert setup.sink.deltas[1].completion_tokens == 11


def test_an_interval_holds_back_all_but_the_first_and_the_last(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    setup = Setup(tiny_tokenizer, stream_interval=4)
    for token in range(10, 20):
        setup.post(token)
        setup.settle()
    setup.post(20, finish="length")
    assert setup.sink.ended.wait(WAIT)
    assert setup.sink.sizes == [1, 4, 4, 2]


def test_an_error_is_not_held_back(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    setup = Setup(tiny_tokenizer, stream_interval=100)
    setup.post(10)
    setup.settle()
    setup.post(11)
    setup.post(error=ValueError("lost"))
    assert setup.sink.ended.wait(WAIT)
    assert [str(error) for error in setup.sink.errors] == ["lost"]


def test_nothing_follows_a_stop_word(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tiny_tokenizer.encode("one two three", add_special_tokens=False)
    setup = Setup(tiny_tokenizer, stop_words=("two",))
    for token in ids:
        setup.post(token)
        setup.settle()
    setup.post(finish="cancelled")
    setup.settle()
    assert "".join(delta.text for delta in setup.sink.deltas) == "one "
    assert [delta.finish_reason for delta in setup.sink.deltas if delta.finish_reason] == ["stop"]
    assert setup.stopped == [setup.ticket]


def test_text_that_cannot_be_made_is_told_to_the_client(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    setup = Setup(tiny_tokenizer)
    setup.post("no token id")  # type: ignore[arg-type]
    assert setup.sink.ended.wait(WAIT)
    assert [str(error) for error in setup.sink.errors] == [
        "the answer could not be delivered; the log says why"
    ]
    assert setup.stopped == [setup.ticket]


def test_what_is_observed(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    setup = Setup(tiny_tokenizer)
    for token in range(10, 13):
        setup.post(token)
        setup.settle()
    setup.post(13, finish="length")
    setup.settle()
    samples = setup.observations.take()
    assert len(samples["time_to_first_token"]) == 1
    assert len(samples["inter_token_latency"]) == 3
    assert len(samples["request_duration"]) == 1
    gaps = sum(samples["inter_token_latency"])
    assert samples["request_duration"][0] == pytest.approx(samples["time_to_first_token"][0] + gaps)
    assert not any(setup.observations.take().values())


def test_a_cancelled_request_has_no_duration(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    setup = Setup(tiny_tokenizer)
    setup.post(10)
    setup.post(finish="cancelled")
    assert setup.sink.ended.wait(WAIT)
    setup.settle()
    assert setup.observations.take()["request_duration"] == []
