"""A measuring process: answers, errors and deaths reach us as such."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.failures import PeerFailure
from benchmarks.link import Link
from benchmarks.processes import peak_rss
from benchmarks.workload import Item

ITEMS = [Item(0, [1, 2], 3), Item(1, [4], 2)]
ROOT = str(Path(__file__).resolve().parents[2])


@pytest.fixture
def link_to(tmp_path: Path):
    """Start a measuring process of our own."""
    links = []

    def start(body: str) -> Link:
        (tmp_path / "measured.py").write_text(
            "import os\nfrom benchmarks.traces import Trace\nfrom benchmarks.worker import serve\n"
            f"def load(options):\n    print('noise of a library')\n{body}\nserve(load)\n"
        )
        variables = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
        links.append(Link(Path(sys.executable), "measured", {"add": 5}, tmp_path / "log", variables, 20))
        return links[-1]

    yield start
    for link in links:
        link.close()


def test_a_workload_comes_back_as_traces(link_to) -> None:
    link = link_to(
        "    def measure(items, concurrency):\n        print('more noise')\n"
        "        return [Trace(i.index, 0.5, [(1.0, 1)], [options['add'] + i.max_tokens]) for i in items]\n"
        "    return measure"
    )
    traces = link.measure(ITEMS, 2, timeout=20)
    assert [(trace.index, trace.token_ids) for trace in traces] == [(0, [8]), (1, [7])]
    assert peak_rss(link.pid) > 1_000_000


def test_an_error_keeps_its_message_and_the_process_lives(link_to) -> None:
    link = link_to("    def measure(items, concurrency):\n        return [][concurrency]\n    return measure")
    for _ in range(2):
        with pytest.raises(PeerFailure, match="IndexError: list index out of range"):
            link.measure(ITEMS, 1, timeout=20)


def test_a_death_is_told_from_a_long_wait(link_to) -> None:
    link = link_to("    return lambda items, concurrency: os._exit(9)")
    with pytest.raises(PeerFailure, match="ended with 9"):
        link.measure(ITEMS, 1, timeout=20)


def test_a_long_wait_ends(link_to) -> None:
    link = link_to("    import time\n    return lambda items, concurrency: time.sleep(60)")
    with pytest.raises(PeerFailure, match="no answer within 0 s"):
        link.measure(ITEMS, 1, timeout=0.2)
    link.close()


def test_what_cannot_load_says_why(link_to) -> None:
    with pytest.raises(PeerFailure, match="ModuleNotFoundError: No module named 'not_there'"):
        link_to("    import not_there")
