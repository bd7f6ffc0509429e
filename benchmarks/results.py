"""Cells of all rounds -> the results: one JSON document that table, plot and ratios are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cells import Cell, CellStore
from benchmarks.reference import Reference
from benchmarks.rounds import Plan, cell_key
from benchmarks.serving_peers.peer import Peer

__all__ = ["peer_results"]

_MILLISECONDS = ("ttft_p50", "ttft_p95", "itl_p50", "itl_p99")


def peer_results(
    peers: Sequence[Peer],
    plan: Plan,
    store: CellStore,
    reference: Reference,
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """Return for each peer: medians over its rounds, flags, memory, start, and why it failed if it did.

    Times are in milliseconds, memory in bytes. ``text_equal`` is the share of requests with the
    reference's text, ``tokens_equal`` the share of tokens before a text leaves it.
    """
    results = {}
    for peer in peers:
        cells = {
            concurrency: [
                cell
                for number in range(1, plan.rounds + 1)
                if (cell := store.get(cell_key(peer, concurrency, number))) is not None
            ]
            for concurrency in plan.items
        }
        measured = [cell for found in cells.values() for cell in found]
        results[peer.key] = {
            "ours": peer.ours,
            "note": peer.note,
            "pins": list(peer.pins),
            "flags": dict(peer.flags()) if peer.key not in failed else {},
            # The page is published: where the writer's home lies is nobody's business.
            "failed": failed[peer.key].replace(str(Path.home()), "~") if peer.key in failed else None,
            "start_seconds": round(median(cell.start_seconds for cell in measured), 2) if measured else None,
            "peak_rss_bytes": max((cell.peak_rss for cell in measured), default=None),
            "concurrency": {
                str(concurrency): _medians(found, plan, concurrency, reference)
                for concurrency, found in cells.items()
                if found
            },
        }
    reference.keep()
    return results


def _medians(cells: Sequence[Cell], plan: Plan, concurrency: int, reference: Reference) -> dict[str, Any]:
    figures = [asdict(cell.figures) for cell in cells]
    items = plan.items[concurrency]
    shares = [reference.agreement(items, cell.token_ids) for cell in cells]
    return {
        "tokens_per_second": round(median(one["tokens_per_second"] for one in figures), 2),
        **{f"{name}_ms": round(1e3 * median(one[name] for one in figures), 2) for name in _MILLISECONDS},
        "text_equal": round(median(texts for texts, _ in shares), 3),
        "tokens_equal": round(median(tokens for _, tokens in shares), 3),
        "requests": figures[0]["requests"],
        "output_tokens": figures[0]["output_tokens"],
        "rounds": [round(one["tokens_per_second"], 2) for one in figures],
    }
