"""Which settings of Triton's dynamic batcher are compared."""

from __future__ import annotations

from benchmarks.batcher import settings_of
from serving.config import ExportConfig


def test_one_setting_differs_from_the_default_at_a_time() -> None:
    delay, size = ExportConfig.queue_delay_us, ExportConfig.max_batch_size
    found = settings_of([0, delay], [1, size, 32])
    assert found == [(0, size), (delay, size), (delay, 1), (delay, 32)]
