"""Whole sweeps against a server that answers three requests at once, so that its capacity is known."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loadtests.errors import ConfigError, OutputError
from loadtests.run import run_load_test
from loadtests.sweep import run as sweep_run
from loadtests.sweep.config import SweepConfig
from loadtests.sweep.curves import Axis, Dot, curve_chart
from loadtests.sweep.point import Point, merged_points
from loadtests.sweep.result import SweepResult
from loadtests.sweep.run import run_sweep
from tests.loadtests.script import FIRST_S, GAP_S, SLOTS, TOKENS
from trimaran.commands import loadtest_sweep

ANSWER_S = FIRST_S + (TOKENS - 1) * GAP_S
CAPACITY = SLOTS / ANSWER_S
"""Requests per second."""
# Who finds a slot waits 80 ms for the first token, who does not 180 ms longer.
LIMIT = "170ms"


def settings(url: str, output: Path, **options: Any) -> SweepConfig:
    values = {
        "start": 1 if options.get("over") else 20,
        "url": url, "model": "narrow", "max_ttft_p95": LIMIT, "warmup": "0s", "point_duration": "1s",
        "max_lateness_p99": "5s", "stop_timeout": "1s", "output": output, **options,
    }  # fmt: skip
    return SweepConfig(**values)


@pytest.fixture(scope="module")
def users(http_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResult, list[str]]:
    """A sweep over concurrency with what it said."""
    said: list[str] = []
    folder = tmp_path_factory.mktemp("users") / "sweep"
    return run_sweep(settings(http_url, folder, over="concurrency"), said.append), said


@pytest.mark.locust
def test_the_concurrency_that_fills_every_slot_is_found(users: tuple[SweepResult, list[str]]) -> None:
    result, said = users
    assert [point.load for point in result.points] == [1, 2, 4, 3]
    assert result.conclusion.found == SLOTS
    assert result.conclusion.ended_by == "limit"
    assert result.outcome == "passed"
    assert result.knee in (SLOTS, SLOTS + 1)
    assert [line.split(":")[0] for line in said] == [
        "[1] 1 user",
        "[2] 2 users",
        "[3] 4 users",
        "[4] 3 users",
    ]


@pytest.mark.locust
def test_the_files_hold_the_answer(users: tuple[SweepResult, list[str]]) -> None:
    result, _ = users
    found = json.loads((result.output / "sweep.json").read_text(encoding="utf-8"))
    assert set(found) == {
        "schema_version", "started", "over", "complete", "found", "ended_by", "first_bad", "saturated_at",
        "knee", "curve", "points", "verdict", "config",
    }  # fmt: skip
    assert found["complete"] is True
    assert found["found"]["load"] == SLOTS
    assert found["first_bad"] == SLOTS + 1
    for point in found["points"]:
        kept = json.loads((result.output / point["directory"] / "results.json").read_text(encoding="utf-8"))
        assert kept["config"]["users"] == point["load"]
        assert kept["metrics"]["ttft"]["p95"] == point["ttft_p95_ns"]
    rows = list(csv.DictReader((result.output / "sweep.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["concurrency"]) for row in rows] == [1, 2, 4, 3]
    assert "ttft p95" in rows[2]["reasons"]
    summary = (result.output / "summary.md").read_text(encoding="utf-8")
    assert "**3 users**" in summary
    page = (result.output / "sweep.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert f"limit {LIMIT.removesuffix('ms')} ms" in page
    assert "3 (highest" in page
    assert 'href="points/3/report.html"' in page
    assert 'id="theme"' in page
    assert "<script src" not in page  # it needs no other file


@pytest.mark.locust
def test_a_sweep_that_was_cut_goes_on_from_its_points(
    users: tuple[SweepResult, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = users
    content = json.loads((whole.output / "sweep.json").read_text(encoding="utf-8"))
    content["points"] = content["points"][:3]
    (whole.output / "sweep.json").write_text(json.dumps(content), encoding="utf-8")
    measured = []

    def spy(config: Any) -> Any:
        measured.append(config.users)
        return run_load_test(config)

    monkeypatch.setattr(sweep_run, "run_load_test", spy)
    config = whole.config
    continued = run_sweep(config)
    assert measured == [3]
    assert list(continued.points[:3]) == list(whole.points[:3])
    assert continued.started == whole.started
    with pytest.raises(OutputError, match=r"other settings \(max_ttft_p95: 170ms, not 9s\)"):
        run_sweep(replace(config, users=None, max_ttft_p95="9s"))
    # The gate is no setting of a point: the same points answer another question, at no cost.
    gated = replace(config, users=None, min_concurrency=SLOTS + 1)
    assert loadtest_sweep(gated) == 1
    assert run_sweep(gated).reasons == [
        "the highest concurrency that meets the limits is 3, below 4 (--min-concurrency): "
        "the next load breaks a limit"
    ]
    assert measured == [3]


@pytest.mark.locust
def test_the_rate_is_found_within_one_step_of_the_bisection(http_url: str, tmp_path: Path) -> None:
    config = settings(
        http_url, tmp_path / "out", arrivals="constant", start=8, factor=2.5, precision=0.3,
        point_duration="1500ms", users=64,
    )  # fmt: skip
    result = run_sweep(config)
    assert result.conclusion.ended_by == "limit"
    assert result.conclusion.found is not None
    assert result.conclusion.first_bad is not None
    # 16.7 per second in theory; the server's own overhead takes a little of it.
    assert 0.75 * CAPACITY < result.conclusion.found < 1.1 * CAPACITY
    assert result.conclusion.first_bad <= 1.3 * 1.1 * CAPACITY


@pytest.mark.locust
def test_a_generator_that_is_too_late_ends_the_growth_and_gives_no_verdict(
    http_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Eight users cannot send 58 requests of 180 ms per second.
    config = settings(
        http_url, tmp_path / "out", model="llm", max_ttft_p95="5s", arrivals="constant", users=8, start=30,
        factor=1.95, precision=0.999, max_lateness_p99="50ms", min_rate=40, point_duration="600ms",
        max_points=2,
    )  # fmt: skip
    assert loadtest_sweep(config) == 4
    said = capsys.readouterr().out
    assert "58.5 requests/s: invalid" in said
    assert "verdict: invalid" in said
    assert "requests were not sent in time" in said


@pytest.mark.locust
def test_an_interrupt_keeps_the_finished_points(http_url: str, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "trimaran", "loadtest", "sweep", "--url", http_url, "--over", "concurrency",
        "--point-duration", "1s", "--warmup", "0s", "--loads", "1,2,3,4,5,6,7,8,9", "--output", "out",
    ]  # fmt: skip
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/points/.2.tmp*/requests.jsonl")):
            assert time.monotonic() < deadline
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 130, err
    found = json.loads((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert [point["load"] for point in found["points"]] == [1]
    assert found["complete"] is False
    assert [path.name for path in (tmp_path / "out" / "points").iterdir()] == ["1"]
    assert (tmp_path / "out" / "sweep.html").is_file()
    assert "highest concurrency that meets the limits: 1 user" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_ttft_p95": None}, "over: rate needs a limit"),
        ({"over": "concurrency", "users": 3}, "users: 3 has no meaning with over: concurrency"),
        ({"over": "concurrency", "start": 1.5}, "whole numbers"),
        ({"over": "concurrency", "arrivals": "constant"}, "arrivals: constant has no meaning"),
        ({"arrivals": "closed"}, "arrivals: closed has no rate that could grow"),
        ({"min_concurrency": 3}, "give min_rate"),
        ({"repeats": 2}, "repeats: 2 has no majority"),
        ({"factor": 1.0}, "factor: 1.0 is not between"),
        ({"precision": 0.0}, "precision: 0.0 is not between"),
        ({"start": 0}, "start: 0 must be above 0"),
        ({"highest": 0.5}, "highest: 0.5 is below start: 20"),
        ({"loads": []}, "one load or more"),
        ({"start": 9}, "9 requests/s are 9 requests"),
        ({"loads": [20, 3]}, "3 requests/s are 3 requests"),
        ({"warmup": "1s"}, "point_duration: 1s leaves nothing to measure"),
        ({"protocol": "smtp"}, "protocol: 'smtp' is unknown"),
        ({"max_points": 0}, "max_points: 0 is too small"),
    ],
)
def test_wrong_settings_are_told_by_name(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        settings("http://127.0.0.1:1", tmp_path, **options)


def test_something_else_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds no sweep"):
            run_sweep(settings("http://127.0.0.1:1", tmp_path, start=20, overwrite=overwrite))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_trials_of_a_load_become_their_medians_and_their_majority() -> None:
    def point(outcome: str, ttft: int | None, rate: float) -> Point:
        return Point(4, "d", outcome, (outcome,), 9, 0, rate, 1.0, ttft, ttft, None, ttft, None)

    (merged,) = merged_points([point("failed", 9, 5.0), point("passed", 5, 7.0), point("passed", 4, 8.0)])
    assert (merged.outcome, merged.reasons) == ("passed", ("passed",))
    assert (merged.ttft_p95_ns, merged.output_tokens_per_second, merged.itl_p99_ns) == (5, 7.0, None)
    (alone,) = merged_points([point("failed", None, 0.0)])
    assert alone.latency_ns is None


@pytest.mark.parametrize("dots", [[Dot(0, 0, "a")], [Dot(1, 5e8, "<a>", label="1 & 2"), Dot(9e5, 1, "b")]])
def test_a_chart_of_any_dots_is_sound(dots: list[Dot]) -> None:
    chart = curve_chart(dots, Axis("x"), Axis("y", duration=True, limit=2e8), "title", joined=dots)
    assert len(ElementTree.fromstring(chart).findall("{*}circle")) == len(dots)
