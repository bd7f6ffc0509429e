"""Rounds: interleaved, resumed where they were cut, never ended by one peer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cells import CellStore
from benchmarks.failures import PeerFailure
from benchmarks.rounds import Plan, prepare_peers, run_rounds
from benchmarks.serving_peers.peer import Peer
from benchmarks.setting import Setting
from benchmarks.traces import Trace
from benchmarks.workload import Item

ITEMS = [Item(index, [1, 2, 3], 4) for index in range(3)]
PLAN = Plan({1: ITEMS, 8: ITEMS}, rounds=2)


class Scripted(Peer):
    """A peer that writes down what it is asked, and fails where it is told to."""

    name = "scripted"
    module = "none"

    def __init__(self, setting: Setting, precision: str, diary: list[str], fails_at: str = "") -> None:
        super().__init__(setting, precision)
        self.diary, self.fails_at = diary, fails_at

    def options(self) -> Mapping[str, Any]:
        return {}

    def prepare(self) -> None:
        self._note("prepare")

    def start(self) -> None:
        self._note("start")

    def stop(self) -> None:
        self._note("stop")

    def measure(self, items: Sequence[Item], concurrency: int) -> list[Trace]:
        self._note(f"c{concurrency}")
        short = self.fails_at == "tokens"
        return [Trace(item.index, 0.0, [(1.0, 3)], [7] * (item.max_tokens - short)) for item in items]

    def peak_rss(self) -> int:
        return 1

    def _note(self, event: str) -> None:
        self.diary.append(f"{self.precision}:{event}")
        if event == self.fails_at:
            raise PeerFailure(f"{event} failed")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, "hash", tmp_path, tmp_path, tmp_path, "fp32", 2)


def test_rounds_are_interleaved_and_turned_round(setting: Setting, tmp_path: Path) -> None:
    diary: list[str] = []
    peers = [Scripted(setting, name, diary) for name in "ab"]
    assert run_rounds(peers, PLAN, CellStore(tmp_path / "cells.json"), diary.append) == {}
    starts = [line for line in diary if line.endswith(":start")]
    assert starts == ["a:start", "b:start", "b:start", "a:start"]


def test_what_was_measured_is_not_measured_again(setting: Setting, tmp_path: Path) -> None:
    diary: list[str] = []
    path = tmp_path / "cells.json"
    failed = run_rounds([Scripted(setting, "a", diary, fails_at="c8")], PLAN, CellStore(path), print)
    assert failed == {"scripted-a": "c8 failed"}
    diary.clear()
    run_rounds([Scripted(setting, "a", diary)], PLAN, CellStore(path), print)
    assert diary == ["a:start", "a:c8", "a:stop", "a:start", "a:c1", "a:c8", "a:stop"]
    diary.clear()
    run_rounds([Scripted(setting, "a", diary)], PLAN, CellStore(path), print)
    assert diary == []
    run_rounds([Scripted(setting, "a", diary)], PLAN, CellStore(path, fresh=True), print)
    assert len(diary) == 8


def test_a_peer_that_fails_is_stopped_and_ends_nothing(setting: Setting, tmp_path: Path) -> None:
    diary: list[str] = []
    bad, good = Scripted(setting, "bad", diary, fails_at="start"), Scripted(setting, "good", diary)
    failed = run_rounds([bad, good], PLAN, CellStore(tmp_path / "cells.json"), print)
    assert failed == {"scripted-bad": "start failed"}
    assert diary.count("bad:start") == diary.count("bad:stop") == 1
    assert diary.count("good:c8") == 2


def test_a_peer_that_stops_early_has_no_figures(setting: Setting, tmp_path: Path) -> None:
    peer = Scripted(setting, "short", [], fails_at="tokens")
    failed = run_rounds([peer], PLAN, CellStore(tmp_path / "cells.json"), print)
    assert "exactly the tokens" in failed["scripted-short"]


def test_a_peer_that_cannot_be_prepared_is_named(setting: Setting) -> None:
    peers = [Scripted(setting, "bad", [], fails_at="prepare"), Scripted(setting, "good", [])]
    ready, failed = prepare_peers(peers, print)
    assert [peer.key for peer in ready] == ["scripted-good"]
    assert failed == {"scripted-bad": "prepare failed"}
