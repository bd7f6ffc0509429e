"""What a step of the torch engine spends in linear layers and in attention, as torch's profiler sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import torch

from serving.engine.torch.compiled.kernels import Kernel
from serving.engine.torch.compiled.program import Program

__all__ = ["PARTS", "parts_of", "seconds_inside"]

PARTS = {
    "linear": (
        "linear",
        "matmul",
        "mm",
        "addmm",
        "_linear_pointwise",
        "mkldnn_linear",
        "gemv_4bit",
    ),
    "attention": (
        "row",
        "prompt",
        "scaled_dot_product_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_attention_math",
        "bmm",
        "baddbmm",
        "_softmax",
    ),
}
"""Part of a step -> torch's operators, without their library's name, and our kernels in it. Keys that are
repeated before the attention are copied by operators that other things use too: these count as everything
else."""


def seconds_inside(compute: Callable[[], object]) -> dict[str, float]:
    """Call ``compute`` under the profiler; return the seconds in each of ``PARTS``.

    A compiled program runs kernel by kernel meanwhile, which takes a little longer.
    """
    with (
        patch.object(Kernel, "run", _named(Kernel.run)),
        patch.object(Program, "run", Program.run_one_by_one),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
    ):
        compute()
    return parts_of((event.key, event.self_cpu_time_total * 1e-6) for event in profile.key_averages())


def parts_of(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Add up what operators took by themselves; ``times`` are their names, as torch has them, and seconds."""
    parts = dict.fromkeys(PARTS, 0.0)
    for key, value in times:
        name = key.rpartition("::")[2].partition(".")[0]
        for part, names in PARTS.items():
            if name in names:
                parts[part] += value
    return parts


def _named(compute: Callable[..., None]) -> Callable[..., None]:
    """Return what does the same and is seen by the profiler, which knows only torch's operators."""

    def run(kernel: Kernel, *arguments: Any, **others: Any) -> None:
        with torch.profiler.record_function(kernel.name):
            compute(kernel, *arguments, **others)

    return run
