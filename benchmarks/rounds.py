"""Interleaved rounds: every peer once per round, so that a slow spell of the machine hits all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, CellStore, hash_files
from benchmarks.failures import PeerFailure
from benchmarks.serving_peers.peer import Peer
from benchmarks.traces import figures_of
from benchmarks.workload import Item

__all__ = ["Plan", "Say", "cell_key", "prepare_peers", "run_rounds"]

_ROOT = Path(__file__).resolve().parent.parent
_OUR_FOLDERS = ("serving", "checkpoints", "model_repository")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    items: Mapping[int, Sequence[Item]]
    """Concurrency -> its requests."""

    rounds: int
    """How often."""


def prepare_peers(peers: Sequence[Peer], say: Say) -> tuple[list[Peer], dict[str, str]]:
    """Install and convert; return the peers that can run, and why the others cannot."""
    ready, failed = [], {}
    for peer in peers:
        say(f"preparing {peer.key}")
        try:
            peer.prepare()
        except PeerFailure as failure:
            failed[peer.key] = str(failure)
            say(f"{peer.key} cannot run here: {failure}")
        else:
            ready.append(peer)
    return ready, failed


def run_rounds(peers: Sequence[Peer], plan: Plan, store: CellStore, say: Say) -> dict[str, str]:
    """Measure what the store does not hold yet; return why peers failed, by key.

    A peer that fails is left out of the rounds that follow; what it brought before stays.
    """
    failed: dict[str, str] = {}
    for number in range(1, plan.rounds + 1):
        # Every other round backwards: no peer always comes after the same one.
        for peer in peers if number % 2 else list(reversed(peers)):
            missing = [c for c in plan.items if store.get(cell_key(peer, c, number)) is None]
            if peer.key in failed or not missing:
                continue
            try:
                _measure(peer, missing, plan, number, store, say)
            except (PeerFailure, ValueError) as failure:
                failed[peer.key] = str(failure)
                say(f"{peer.key} failed: {failure}")
            finally:
                peer.stop()
    return failed


def cell_key(peer: Peer, concurrency: int, number: int) -> str:
    """Return the key of a cell in the store."""
    return f"{peer.key}|{_identity(type(peer))}|c{concurrency}|round{number}"


def _measure(peer: Peer, missing: Sequence[int], plan: Plan, number: int, store: CellStore, say: Say) -> None:
    say(f"round {number}/{plan.rounds}  {peer.key}: starting")
    peer.start()
    for concurrency in missing:
        items = plan.items[concurrency]
        traces = peer.measure(items, concurrency)
        wrong = [
            trace.index
            for trace, item in zip(sorted(traces, key=lambda t: t.index), items, strict=True)
            if len(trace.token_ids) != item.max_tokens
        ]
        if wrong:
            raise PeerFailure(f"requests {wrong[:5]} did not get exactly the tokens they asked for")
        figures = figures_of(traces)
        tokens = {str(trace.index): trace.token_ids for trace in traces}
        cell = Cell(figures, tokens, peer.start_seconds, peer.peak_rss())
        store.put(cell_key(peer, concurrency, number), cell)
        say(
            f"round {number}/{plan.rounds}  {peer.key} c={concurrency}: "
            f"{figures.tokens_per_second:.1f} tokens/s, TTFT {1e3 * figures.ttft_p50:.0f} ms, "
            f"ITL {1e3 * figures.itl_p50:.0f} ms ({figures.seconds:.0f} s)"
        )


@cache  # once per run: somebody may edit while it goes on
def _identity(kind: type[Peer]) -> str:
    classes: list[Any] = [one for one in kind.__mro__ if one.__module__.startswith("benchmarks.")]
    files = {Path(str(sys.modules[one.__module__].__file__)) for one in classes}
    if kind.ours:
        files |= {path for folder in _OUR_FOLDERS for path in (_ROOT / folder).rglob("*.py")}
    return hash_files(files)
