"""Traces -> figures -> ratios, table and verdicts about the peers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import serving
from benchmarks.design_figures import FIGURES, FLOORS, floor_shares, peer_shares, shortfalls
from benchmarks.ratios import ratios_of
from benchmarks.report import render_report
from benchmarks.stalls import stalls_of
from benchmarks.traces import Trace, figures_of


def trace(index: int, start: float, *arrivals: tuple[float, int]) -> Trace:
    """A trace whose tokens are zeros."""
    one = Trace(index, start)
    for moment, count in arrivals:
        one.add(moment, [0] * count)
    return one


def test_figures_of_two_requests() -> None:
    figures = figures_of([trace(0, 0.0, (1.0, 1), (2.0, 1)), trace(1, 1.0, (1.5, 1), (4.0, 3))])
    assert figures.output_tokens == 6
    assert figures.tokens_per_second == pytest.approx(6 / 4)
    assert figures.ttft_p50 == pytest.approx(0.75)
    # Three tokens at once are one gap: the reader waited that long.
    assert figures.itl_p50 == pytest.approx(1.75)


def test_a_request_without_tokens_is_no_figure() -> None:
    with pytest.raises(ValueError, match=r"requests \[1\]"):
        figures_of([trace(0, 0.0, (1.0, 1)), Trace(1, 0.0)])


def peer(ours: bool, failed: str | None = None, **speeds: float) -> dict[str, Any]:
    """A peer's results."""
    same = ("ttft_p50_ms", "ttft_p95_ms", "itl_p50_ms", "itl_p99_ms", "text_equal", "tokens_equal")
    times = dict.fromkeys(same, 1.0)
    return {
        "ours": ours,
        "note": "a note",
        "flags": {"threads": 2},
        "failed": failed,
        "peak_rss_bytes": 5e8,
        "start_seconds": 1.5,
        "concurrency": {
            name.removeprefix("c"): {
                "tokens_per_second": speed,
                "text_equal": 1.0,
                "tokens_equal": 1.0,
                **times,
            }
            for name, speed in speeds.items()
        },
    }


PEERS = {
    "transformers-static-fp32": peer(False, c1=10.0, c8=20.0),
    "vllm-fp32": peer(False, failed="no AVX-512 here"),
    "inprocess-torch-fp32": peer(True, c8=42.0),
    "triton-torch-fp32": peer(True, c1=15.0, c8=40.0),
    "triton-http-openvino-int8": peer(True, c8=60.0),
}


SETTING: dict[str, Any] = {
    "machine": {
        "cpu": "A CPU",
        "cores": 2,
        "cpu_flags": ["avx2"],
        "memory_bytes": 2**34,
        "system": "Linux",
        "python": "3.11",
    },
    "floors": {"read_bytes_per_second": 2e10, "matmul_flops_per_second": 1e11},
    "ceilings": {"read": {"fp32": 37.0}, "matmul": 372.0},
    "precision": "fp32",
    "workload": {"requests": 32, "fingerprint": "abc"},
    "rounds": 3,
    "threads": 2,
}


def test_ratios_pair_ours_with_theirs() -> None:
    assert ratios_of(PEERS) == {
        "inprocess-torch-fp32/transformers-static-fp32@c8": 2.1,
        "triton-torch-fp32/transformers-static-fp32@c1": 1.5,
        "triton-torch-fp32/transformers-static-fp32@c8": 2.0,
        "triton-torch-fp32/inprocess-torch-fp32@c8": round(40 / 42, 3),
        "triton-http-openvino-int8/transformers-static-fp32@c8": 3.0,
    }


def test_the_page_names_what_failed_and_what_was_measured() -> None:
    design = {"machine_matches": False, "judged": False, "shortfalls": []}
    page = render_report({**SETTING, "peers": PEERS, "concurrency": [1, 8], "design": design})
    assert "| vllm-fp32 | - | - | cannot run here: no AVX-512 here |" in page
    assert "| **triton-torch-fp32** | 15 | 40 | 100% / 100% | 500 | 1.5 |" in page
    assert "**another kind of machine**" in page


def test_a_peer_below_nine_tenths_of_the_design_is_named() -> None:
    good = {
        key: peer(False, None, **{f"c{c}": value for c, value in row.items()}) for key, row in FIGURES.items()
    }
    assert shortfalls(good, [1, 8, 32]) == []
    good["llamacpp-q8_0"] = peer(False, c1=82 * 0.89, c8=108.0)
    assert shortfalls(good, [1, 8, 32]) == [
        "llamacpp-q8_0 at c=1: 73 tokens/s, 82 expected",
        "llamacpp-q8_0 at c=32: not measured, 123 expected",
    ]
    assert shortfalls(good, [8]) == []  # nothing is said of what was not asked for
    del good["llamacpp-q8_0"]
    assert shortfalls(good, [1, 8, 32]) == []


@pytest.mark.parametrize(
    ("speed", "cpu", "judged", "counts"),
    [
        (61 * 0.91, "AMD EPYC", True, True),
        (61 * 0.89, "AMD EPYC", True, False),
        (61 * 0.89, "AMD EPYC", False, True),  # a quick look
        (61 * 0.89, "Intel Xeon", True, True),
    ],
)
def test_a_run_that_does_not_count_fails_and_says_so_before_the_ratios(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    speed: float,
    cpu: str,
    judged: bool,
    counts: bool,
) -> None:
    monkeypatch.setattr(serving, "plot_serving", lambda *_: None)
    peers = {"llamacpp-bf16": peer(False, c1=speed), "triton-torch-bf16": peer(True, c1=2 * speed)}
    results = {
        **SETTING,
        "peers": peers,
        "concurrency": [1],
        "machine": {**SETTING["machine"], "cpu": cpu, "cpu_flags": ["avx512_bf16"]},
    }
    written = serving._write(results, tmp_path, "serving", judged=judged)
    assert serving._conclude([written]) == (0 if counts else 1)
    *before, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == {"triton-torch-bf16/llamacpp-bf16@c1": 2.0}
    said = [line for line in before if "DOES NOT COUNT" in line]
    assert [line.endswith("llamacpp-bf16 at c=1: 54 tokens/s, 61 expected") for line in said] == (
        [] if counts else [True]
    )
    assert ("This run does not count" in (tmp_path / "serving.md").read_text()) is not counts
    design = json.loads((tmp_path / "serving.json").read_text())["design"]
    assert (design["shortfalls"] == []) is counts
    assert design["judged"] is (judged and cpu == "AMD EPYC")
    assert ("below 0.9" in (tmp_path / "serving.md").read_text()) is design["judged"]


def test_the_page_tells_a_slow_machine_from_a_badly_set_up_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "plot_serving", lambda *_: None)
    peers = {"llamacpp-bf16": peer(False, c1=30.5, c8=59.5), "vllm-bf16": peer(False, c8=23.4)}
    assert peer_shares(peers, [1, 8, 32]) == {
        "llamacpp-bf16": {"1": 0.5, "8": 0.5},
        "vllm-bf16": {"8": 0.1},
    }
    floors = {"read_bytes_per_second": 16e9, "matmul_flops_per_second": 237.6e9}
    assert floor_shares(floors) == {"read_bytes_per_second": 0.5, "matmul_flops_per_second": 0.6}
    assert floor_shares(FLOORS) == dict.fromkeys(FLOORS, 1.0)
    results = {
        **SETTING,
        "floors": floors,
        "precision": "bf16",
        "peers": peers,
        "concurrency": [1, 8],
        "machine": {**SETTING["machine"], "cpu": "AMD EPYC", "cpu_flags": ["avx512_bf16"]},
    }
    written = serving._write(results, tmp_path, "serving", judged=True)
    page = (tmp_path / "serving.md").read_text()
    assert "| llamacpp-bf16 | 0.50 | 0.50 |" in page
    assert "| vllm-bf16 | - | 0.10 |" in page
    assert "at 0.50 of the design's 32 GB/s and multiplies in bf16 at 0.60 of its 396 GFLOP/s" in page
    capsys.readouterr()
    assert serving._conclude([written]) == 1
    assert "reads 0.50 and multiplies 0.60" in capsys.readouterr().out


def test_stalls_are_told_from_the_usual_gaps() -> None:
    steady = [(0.1 * step, 1) for step in range(1, 21)]
    stalled = [(moment + (0.5 if moment > 1.01 else 0.0), count) for moment, count in steady]
    found = stalls_of([trace(0, 0.0, *stalled)], trace(1, 1.05, (1.55, 1)))
    assert found["median_ms"] == pytest.approx(100)
    assert found["max_ms"] == pytest.approx(600)
    assert found["p99_during_over_median"] == pytest.approx(6, rel=0.05)
    with pytest.raises(ValueError, match="among running streams"):
        stalls_of([trace(0, 0.0, *steady)], trace(1, 9.0, (10.0, 1)))
