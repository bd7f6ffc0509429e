"""The scripted server of the load generators' comparison, and the figures that are made of its stamps."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loadgen import scripted_server, served_figures
from benchmarks.loadgen_peers import ours
from benchmarks.loadgen_peers.scenario import FIGURES, Scenario
from benchmarks.loadgen_report import page, ratios

FIRST_MS, GAP_MS, TOKENS = 30, 10, 4


def ask(url: str, model: str, protocol: str) -> int:
    """Ask once; return how many tokens came."""
    if protocol == "grpc":
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = service_pb2.ModelInferRequest(model_name=model)
            return len(list(stub.ModelStreamInfer(iter([request]), timeout=20)))
    path = f"/v2/models/{model}/generate_stream" if protocol == "generate_stream" else "/v1/chat/completions"
    body = json.dumps({"model": model, "stream": True}).encode()
    with urllib.request.urlopen(url + path, data=body, timeout=20) as answer:
        return sum(line.startswith(b"data: {") for line in answer)


@pytest.mark.parametrize("protocol", ["openai_chat", "generate_stream", "grpc"])
def test_the_server_keeps_its_delays_and_stamps_every_token(protocol: str) -> None:
    scenario = Scenario("", FIRST_MS, GAP_MS, TOKENS, 1, 2, protocol=protocol)
    with scripted_server(scenario) as (url, truth_url):
        assert [ask(url, scenario.model, protocol) for _ in range(2)] == [TOKENS, TOKENS]
        found = served_figures(truth_url)
    assert (found["served"], found["tokens"]) == (2, 2 * TOKENS)
    assert found["ttft_p50"] >= FIRST_MS - 1
    assert found["e2e_p50"] >= FIRST_MS + (TOKENS - 1) * GAP_MS - 1
    assert found["tpot_p95"] >= GAP_MS - 1
    assert found["late_p50"] <= found["late_p99"]


@pytest.mark.locust
def test_our_figures_over_grpc_are_those_of_the_server(tmp_path: Path) -> None:
    # Other work on the machine may spoil a run, and not each of three; an error of ours is in all.
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        off = errors_over_grpc(folder)
        # The real bound is that of the benchmark, on an idle machine.
        over = {name: error for name, error in off.items() if error >= (20 if "p50" in name else 60)}
        if not over:
            break
    assert not over, off


def errors_over_grpc(folder: Path) -> dict[str, float]:
    """Return how far each of our figures of a run is off, in milliseconds."""
    scenario = Scenario("", 50, 10, 20, 4, 16, protocol="grpc")
    with scripted_server(scenario) as (url, truth_url):
        measured = ours.measure(scenario, url, folder, Path(sys.executable), folder)
        truth = served_figures(truth_url)
    assert measured.answered == truth["served"] == 16
    found = {}
    for name in FIGURES:
        seen = measured.figures[name]
        assert seen is not None
        found[name] = abs(seen - truth[name])
    return found


def result(**errors: float) -> dict[str, Any]:
    scenario = {"errors": errors, "ttft_p99": None, "true_ttft_p99": 1.0, "open_loop": False}
    return {
        "scenarios": {"one": scenario}, "cpu_ms_per_1k_tokens": 40.0, "cpu_scenario": "one",
        "start_cpu_seconds": 1.0, "failures": [],
    }  # fmt: skip


def test_the_page_has_the_worst_figure_of_each_tool_and_answers_that_do_not_add_up() -> None:
    summary = {"ours": result(ttft_p50=0.5, tpot_p95=1.5), "other": result(e2e_p95=9.0)}
    assert ratios(summary) == {
        "max_error_ms/ours": 1.5, "max_error_ms/other": 9.0, "cpu_ms_per_1k_tokens/ours": 40.0,
        "cpu_ms_per_1k_tokens/other": 40.0,
    }  # fmt: skip
    runs = [
        {"tool": "ours", "scenario": "one", "answered": 5, "served": 5},
        {"tool": "other", "scenario": "one", "answered": 4, "served": 5},
    ]
    text = page(
        {"machine": {"cpu": "x", "cores": 2}, "summary": summary, "versions": {}, "rounds": 3, "runs": runs}
    )
    assert "| one | 1.5 (tpot p95) | 9.0 (e2e p95) |" in text
    assert "other, one: it counts 4 answers, the server 5." in text
    assert "ours, one: it counts" not in text
