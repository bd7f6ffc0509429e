"""What ``model.py`` does with Triton's responses, beside a Triton that answers when the test says."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import model_repository
from serving.engine.text_stream import Delta
from serving.tensors import OUTPUTS

WAIT = 30
NAMES = {tensor.name for tensor in OUTPUTS}


class Sender:
    """Keeps what is sent; a question can be held up."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, int]] = []
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.questions = 0

    def send(self, response: Any, flags: int = 0) -> None:
        self.sent.append((response, flags))

    def is_cancelled(self) -> bool:
        self.questions += 1
        self.asked.set()
        assert self.gate.wait(WAIT)
        assert not any(flags for _, flags in self.sent), "asked of a request whose last response was sent"
        return False


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``model.py`` as a module, over stand-ins for Triton's classes."""
    triton = ModuleType("triton_python_backend_utils")
    triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1  # type: ignore[attr-defined]
    triton.Tensor = lambda name, value: SimpleNamespace(name=name, value=value)  # type: ignore[attr-defined]
    triton.InferenceResponse = lambda tensors, error=None: tensors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, triton.__name__, triton)
    path = Path(model_repository.__path__[0]) / "llm" / "1" / "model.py"
    spec = importlib.util.spec_from_file_location("llm_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def begun(model: Any, sender: Sender, ended: list[str] | None = None) -> Any:
    request = SimpleNamespace(
        get_response_sender=lambda: sender, requested_output_names=lambda: [*NAMES], timeout=lambda: 0
    )
    answer = model.Answer(request, lambda _, outcome: None if ended is None else ended.append(outcome))
    sampling = SimpleNamespace(seed=7)
    answer.begin(SimpleNamespace(stream=True, generation=SimpleNamespace(sampling=sampling)))
    return answer


def test_a_last_response_does_not_wait_for_a_question_to_triton(model: Any) -> None:
    sender, outcomes = Sender(), list[str]()
    answer = begun(model, sender, outcomes)
    sender.gate.clear()
    watcher = threading.Thread(target=answer.is_cancelled)
    watcher.start()
    assert sender.asked.wait(WAIT)
    delivery = threading.Thread(target=answer.on_delta, args=(Delta("a", [1], [], "stop", 3, 1),))
    delivery.start()
    delivery.join(WAIT / 2)
    assert not delivery.is_alive()
    assert sender.sent == []  # Triton would free what it is being asked about
    sender.gate.set()
    watcher.join(WAIT)
    assert [flags for _, flags in sender.sent] == [1]
    assert outcomes == ["ok"]
    assert not answer.is_cancelled()
    assert (sender.questions, len(sender.sent)) == (1, 1)


def test_triton_is_asked_after_a_client_less_often_than_deadlines_are_looked_at(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(model, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    sender = Sender()
    answer = begun(model, sender)
    answer.ticket = object()

    def wait(seconds: float) -> bool:
        clock[0] += seconds
        return clock[0] >= 102

    watched = SimpleNamespace(
        answers={answer},
        finished=SimpleNamespace(wait=wait),
        metrics=SimpleNamespace(publish=lambda *_: None),
        loop=SimpleNamespace(running=0, waiting=0),
        look_after=lambda answer, now: model.TritonPythonModel.look_after(watched, answer, now),
    )
    model.TritonPythonModel.watch(watched)
    assert 6 <= sender.questions <= 8  # in two seconds, of 40 looks


def test_every_response_has_every_output_and_makes_anew_what_changes(model: Any) -> None:
    sender = Sender()
    answer = begun(model, sender)
    answer.on_delta(Delta("a", [1], [], "", 3, 1))
    answer.on_delta(Delta("bc", [2, 3], [-0.5, -1.0], "", 3, 3))
    answer.on_delta(Delta("", [4], [], "length", 3, 4))
    first, second, last = ({tensor.name: tensor for tensor in tensors} for tensors, _ in sender.sent)
    assert all(response.keys() == NAMES for response in (first, second, last))
    assert first["seed"] is second["seed"] is last["seed"]
    assert first["prompt_tokens"] is last["prompt_tokens"]
    assert first["finish_reason"] is second["finish_reason"]
    values = {name: [one[name].value.tolist() for one in (first, second, last)] for name in NAMES}
    assert values == {
        "text_output": [[[b"a"]], [[b"bc"]], [[b""]]],
        "output_ids": [[[1]], [[2, 3]], [[4]]],
        "log_probs": [[[]], [[-0.5, -1.0]], [[]]],
        "finish_reason": [[[b""]], [[b""]], [[b"length"]]],
        "prompt_tokens": [[[3]]] * 3,
        "completion_tokens": [[[1]], [[3]], [[4]]],
        "seed": [[[7]]] * 3,
    }
    assert last["seed"].value.dtype == np.uint64


def test_an_answer_that_cannot_be_looked_after_does_not_end_the_watch(model: Any) -> None:
    class Broken:
        ticket, ask_at, deadline, started = "one", 0.0, float("inf"), True

        def is_cancelled(self) -> bool:
            raise RuntimeError("the response sender is gone")

    left = SimpleNamespace(ticket="two", ask_at=0.0, is_cancelled=lambda: True)
    cancelled: list[str] = []
    rounds = iter([False, False, True])
    engine = SimpleNamespace(cancel=cancelled.append, running=0, waiting=0)
    server = SimpleNamespace(
        finished=SimpleNamespace(wait=lambda _: next(rounds)),
        answers=[Broken(), left],
        loop=engine,
        metrics=SimpleNamespace(publish=lambda *_: None),
        look_after=lambda answer, now: model.TritonPythonModel.look_after(server, answer, now),
    )
    model.TritonPythonModel.watch(server)
    assert cancelled == ["two", "two"]
