"""How our engines stand to the others: one number per pair and concurrency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ratios_of"]


def ratios_of(peers: Mapping[str, Any]) -> dict[str, float]:
    """Return output tokens/s of ours over theirs, keys ``"OURS/PEER@cN"``.

    Among ours, what goes through Triton is also held against the same engine in process.

    Args:
        peers: ``peers`` of the results: key -> ``ours`` and ``concurrency`` -> ``tokens_per_second``.
    """
    ratios = {}
    for ours, our_facts in peers.items():
        if not our_facts["ours"]:
            continue
        for theirs, their_facts in peers.items():
            if their_facts["ours"] and not _same_engine(ours, theirs):
                continue
            for concurrency, cell in our_facts["concurrency"].items():
                other = their_facts["concurrency"].get(concurrency)
                if other is not None:
                    ratio = cell["tokens_per_second"] / other["tokens_per_second"]
                    ratios[f"{ours}/{theirs}@c{concurrency}"] = round(ratio, 3)
    return ratios


def _same_engine(ours: str, theirs: str) -> bool:
    engine = ours.removeprefix("triton-").removeprefix("http-")
    return ours != theirs and theirs == f"inprocess-{engine}"
