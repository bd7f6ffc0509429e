"""CUDA graphs: sizes and padding on any machine, the graphs themselves where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.slots.engine import SlotEngine
from serving.engine.torch.cuda_graphs import DecodeGraphs, buckets
from serving.engine.torch.runner import TorchRunner
from tests.equality import assert_equal_tokens
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import make_engine, prompts, references, tiny_model


class EagerGraphs(DecodeGraphs):
    """The same passes, computed instead of replayed."""

    def _capture(self, rows: int, length: int) -> Callable[[], torch.Tensor]:
        return lambda: self._pass(rows, length)


def test_sizes() -> None:
    assert buckets(1, 12) == [1, 2, 4, 8, 12]
    assert buckets(256, 2049) == [256, 512, 1024, 2048, 2049]
    assert buckets(129, 129) == [129]


@pytest.mark.parametrize("name", ["llama", "mistral with a window", "deepseek_v3"])
def test_rounding_up_rows_and_contexts_changes_no_token(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engine.torch.cuda_graphs._SHORTEST", 32)
    model = tiny_model(name)
    ids = prompts(9)
    expected = references(model, ids, 20)
    runner = TorchRunner(model, 7, 128)
    runner._graphs = EagerGraphs(runner._forward, 7, runner.cache.positions, runner.device)
    runner._graphs.capture_all()
    engine = SlotEngine(runner, stop_ids=[2], slots=7, max_context=128, prefill_chunk=16)
    requests = [GenerationRequest(item, SamplingParameters(max_tokens=20)) for item in ids]
    # One after the other, so that idle rows lie where a prompt is being computed.
    found = drive(engine, requests, arrives_at=lambda index: 3 * index)
    assert_equal_tokens(expected, [token_ids(events) for events in found])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_graphs_give_the_same_tokens() -> None:
    model = tiny_model().cuda()
    ids = prompts(9)
    expected = references(model, ids, 20)
    engine = make_engine(model)
    runner = engine._runner
    assert isinstance(runner, TorchRunner)
    runner.capture_graphs()
    assert runner._graphs is not None
    requests = [GenerationRequest(item, SamplingParameters(max_tokens=20)) for item in ids]
    found = drive(engine, requests, arrives_at=lambda index: 3 * index)
    assert_equal_tokens(expected, [token_ids(events) for events in found])
