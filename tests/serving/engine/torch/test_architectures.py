"""Each architecture that is listed as shown equal, against ``generate``, request by request."""

from __future__ import annotations

import pytest
import torch

from serving.engine.request import GenerationRequest, SamplingParameters
from serving.engine.torch.support import SHOWN_EQUAL, check_supported
from tests.equality import assert_equal_tokens
from tests.serving.engine.engines import drive, token_ids
from tests.serving.engine.torch.architectures import (
    ARCHITECTURES,
    config_class,
    make_engine,
    prompts,
    references,
    tiny_model,
)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_overlapping_requests_equal_generate(name: str) -> None:
    torch.set_num_threads(1)
    model = tiny_model(name)
    ids = prompts(6)
    expected = references(model, ids, 16)
    check_supported(model.config, 128)
    engine = make_engine(model, prepare=True)  # as loading does: fast paths included
    requests = [GenerationRequest(item, SamplingParameters(max_tokens=16)) for item in ids]
    found = drive(engine, requests, arrives_at=lambda index: 2 * index)
    assert_equal_tokens(expected, [token_ids(events) for events in found])
    assert engine.counters.peak_batch >= 3


def test_many_rows_of_different_lengths_equal_generate() -> None:
    # More rows than attend in one run.
    model = tiny_model()
    ids = prompts(20, longest=100)
    expected = references(model, ids, 24)
    requests = [GenerationRequest(item, SamplingParameters(max_tokens=24)) for item in ids]
    found = drive(make_engine(model, prepare=True, slots=20), requests)
    assert_equal_tokens(expected, [token_ids(events) for events in found])


def test_every_listed_architecture_is_shown() -> None:
    shown = {config_class(name)(**settings).model_type for name, (_, settings) in ARCHITECTURES.items()}
    assert shown == set(SHOWN_EQUAL)
