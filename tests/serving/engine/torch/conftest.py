"""Teams of threads, and computing as an engine does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(params=[1, 2, 3])
def team(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads compute; more than the machine may have cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def without_gradients() -> Iterator[None]:
    """Random numbers are the same in every test, and nothing is recorded for gradients."""
    torch.manual_seed(0)
    with torch.inference_mode():
        yield
