"""The figures of the design's table, and how the peers of a run stand to them.

They were measured on 2 AMD cores with avx512_bf16. On that kind of machine a run counts only if each
peer reaches 0.9 of its figure: a peer that was set up badly is easily beaten. Two machines of the kind
need not be equally fast, so the machine's own floors are held against the design's beside them: where
both fall short alike, it is the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["FIGURES", "FLOORS", "floor_shares", "peer_shares", "shortfalls"]

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

FLOORS = {"read_bytes_per_second": 32e9, "matmul_flops_per_second": 396e9}
"""What the design's machine could do at most: reading memory, and multiplying matrices in bf16."""


def floor_shares(floors: Mapping[str, float]) -> dict[str, float]:
    """Return what ``machine.measure_floors`` found, in bf16, as shares of the design's."""
    return {name: round(floors[name] / design, 3) for name, design in FLOORS.items()}


def peer_shares(peers: Mapping[str, Any], concurrency: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return what each peer reached of its figure: peer -> concurrency -> share, of what was measured.

    Args:
        peers: ``peers`` of the results.
        concurrency: what was asked for.
    """
    shares: dict[str, dict[str, float]] = {}
    for key, figures in FIGURES.items():
        cells = peers[key]["concurrency"] if key in peers else {}
        found = {
            str(users): round(cells[str(users)]["tokens_per_second"] / expected, 3)
            for users, expected in figures.items()
            if users in concurrency and str(users) in cells
        }
        if found:
            shares[key] = found
    return shares


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
