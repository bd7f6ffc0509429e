"""The figures of the design's table, and which peers of a run fell short of them.

They were measured on 2 AMD cores with avx512_bf16. On that kind of machine a run counts only if each
peer reaches 0.9 of its figure: a peer that was set up badly is easily beaten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FIGURES", "shortfalls"]

ENOUGH = 0.9

FIGURES: dict[str, dict[int, float]] = {
    "transformers-static-bf16": {1: 23, 8: 47, 32: 66},
    "transformers-continuous-bf16": {1: 20, 8: 74, 32: 83},
    "llamacpp-bf16": {1: 61, 8: 119, 32: 153},
    "llamacpp-q8_0": {1: 82, 8: 108, 32: 123},
    "vllm-bf16": {1: 51, 8: 234, 32: 275},
    "openvino-genai-fp16": {1: 57, 8: 220, 32: 276},
    "openvino-genai-int8": {1: 82, 8: 258, 32: 316},
}
"""Peer -> concurrency -> output tokens/s."""


def shortfalls(peers: Mapping[str, Any], concurrency: Sequence[int]) -> list[str]:
    """Return a line for each figure of this run that is below 0.9 of the design's, or was not to be had.

    Args:
        peers: ``peers`` of the results: all that were asked for, those that failed too.
        concurrency: what was asked for.
    """
    lines = []
    for key, figures in FIGURES.items():
        if key not in peers:
            continue
        for users, expected in figures.items():
            if users not in concurrency:
                continue
            cell = peers[key]["concurrency"].get(str(users))
            if cell is None:
                lines.append(f"{key} at c={users}: not measured, {expected:.0f} expected")
            elif cell["tokens_per_second"] < ENOUGH * expected:
                found = cell["tokens_per_second"]
                lines.append(f"{key} at c={users}: {found:.0f} tokens/s, {expected:.0f} expected")
    return lines
