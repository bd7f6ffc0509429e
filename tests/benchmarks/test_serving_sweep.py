"""The example of a sweep over serving configurations: what it asks for, and what it writes down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import serving_sweep
from loadtests.sweep.point import Point
from loadtests.sweep.result import SweepResult
from trimaran.sweep.config import ServingSweepConfig
from trimaran.sweep.result import Outcome, ServingSweepResult

MS = 1_000_000


def point(load: float, tokens: float, ttft_ms: int) -> Point:
    return Point(
        load=load, directory=f"points/{load:g}", outcome="passed", reasons=(), requests=9, failures=0,
        output_tokens_per_second=tokens, requests_per_second=1.0, ttft_p50_ns=ttft_ms * MS,
        ttft_p95_ns=ttft_ms * MS, itl_p99_ns=None, e2e_p95_ns=None, goodput=None,
    )  # fmt: skip


@pytest.mark.parametrize("measured", [True, False])
def test_the_example_is_swept_and_written_down(
    measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ServingSweepConfig] = []

    def sweep_nothing(config: ServingSweepConfig, announce: Callable[[str], None]) -> ServingSweepResult:
        asked.append(config)
        assert config.output is not None
        outcomes = []
        for number, candidate in enumerate(config.candidates()):
            if measured and number:
                curve = [point(1, 40.0 * number, 100), point(8, 100.0 * number, 400)]
                done: Any = SimpleNamespace(curve=curve, conclusion=SimpleNamespace(ended_by="loads"))
                outcomes.append(Outcome(candidate, str(number), cast("SweepResult", done)))
            else:
                outcomes.append(Outcome(candidate, str(number), None, "no such engine"))
        return ServingSweepResult(config, "2026-01-02T03:04:05+00:00", config.output, outcomes)

    monkeypatch.setattr(serving_sweep, "sweep_serving", sweep_nothing)
    monkeypatch.setenv("TRIMARAN_CACHE", str(tmp_path / "cache"))
    arguments = ["--checkpoint", str(tmp_path), "--output", str(tmp_path), "--point-duration", "9s"]
    assert serving_sweep.main(arguments) == (0 if measured else 1)

    (config,) = asked
    assert (config.checkpoint, config.loads, config.point_duration) == (tmp_path, [1, 8], "9s")
    assert len(config.candidates()) == len(serving_sweep.CONFIGURATIONS)
    found = json.loads((tmp_path / "serving_sweep.json").read_text(encoding="utf-8"))
    text = (tmp_path / "serving_sweep.md").read_text(encoding="utf-8")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found["ratios"]
    assert "engine=torch was skipped: no such engine" in text
    assert str(tmp_path) not in text
    assert str(tmp_path) not in json.dumps(found)  # it is published
    if not measured:
        assert found["ratios"] == {}
        assert "No configuration meets the limits." in text
        return
    last = config.candidates()[-1].label
    assert found["best"]["configuration"] == last
    assert found["ratios"][f"tokens_per_second/{last}"] == 300.0
    assert found["ratios"][f"ttft_p95_ms/{last}"] == 400.0
    assert f"To use: **{last}**" in text
    assert text.count("| passed |") == 6
