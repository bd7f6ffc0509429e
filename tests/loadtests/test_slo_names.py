"""Limits as a team writes them down: by name, in YAML or on the command line."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest

from loadtests.config import LoadTestConfig
from loadtests.config_json import config_from_json, config_to_json
from loadtests.errors import ConfigError
from loadtests.measurement import measure
from loadtests.metrics.distribution import Distribution
from loadtests.run import judge_measurement
from loadtests.stock_options import add_options, config_from_options
from loadtests.sweep.config import SweepConfig
from tests.loadtests.test_metrics import record
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS

MS = 1_000_000
WRITTEN = {"ttft_p95": "500ms", "itl_p99": "80ms", "failure_rate": "0.1%", "goodput": "95%"}


def test_four_lines_are_a_whole_gate(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text(
        "slo:\n  ttft_p95: 500ms\n  itl_p99: 80ms\n  failure_rate: 0.1%\n  goodput: 95%\n", encoding="utf-8"
    )
    config, _ = parse_command(COMMANDS["loadtest"], ["--config", str(tmp_path / "slo.yaml")])
    assert config == LoadTestConfig(slo=dict(WRITTEN))
    assert config.latency_limits() == {("ttft", "p95"): 500 * MS, ("itl", "p99"): 80 * MS}
    assert (config.failure_limit, config.goodput_limit) == (0.001, 0.95)
    # A good request keeps what its metric must; single gaps between tokens are another matter.
    assert config.objectives() == {"ttft": 500 * MS}
    on_the_line = "ttft_p95=500ms, itl_p99=80ms,failure_rate=0.1%,goodput=95%"
    assert parse_command(COMMANDS["loadtest"], ["--slo", on_the_line])[0] == config
    assert config_from_json(config_to_json(config)) == config
    assert dataclasses.replace(config, users=3).failure_limit == 0.001


class Options(ArgumentParser):
    """As Locust's parser, which patches the process it is imported into."""

    def add_argument(self, *names: Any, include_in_web_ui: bool = True, **option: Any) -> Any:
        return super().add_argument(*names, **option)


def test_locust_takes_the_same_names() -> None:
    parser = Options()
    add_options(parser)
    of_locust = {"host": "http://endpoint", "num_users": 2, "run_time": 30, "stop_timeout": 5}

    def read(*arguments: str) -> LoadTestConfig:
        return config_from_options(parser.parse_args(arguments, Namespace(**of_locust)))

    assert read("--slo", "failure_rate=0.1%").failure_limit == 0.001
    assert read("--slo", "failure_rate=1%", "--max-failure-rate", "0.01").max_failure_rate == 0.01
    assert read().max_failure_rate == 0.01
    with pytest.raises(ConfigError, match=r"failure_rate: 0.001 and max_failure_rate: 1% clash"):
        read("--slo", "failure_rate=0.1%", "--max-failure-rate", "1%")


def test_a_sweep_takes_the_same_names() -> None:
    sweep = SweepConfig(slo="ttft_p95=500ms,goodput=95%", point_duration="20s")
    assert sweep.point(4.0).latency_limits() == {("ttft", "p95"): 500 * MS}
    assert SweepConfig(slo="e2e_p50=9s,goodput=95%").point(4.0).goodput_limit == 0.95


def test_every_metric_of_time_has_every_percentile() -> None:
    named = {
        f"{metric}_{percentile}": "1s"
        for metric in ("ttft", "itl", "tpot", "e2e")
        for percentile in ("p50", "p90", "p95", "p99", "p99.9")
    }
    limits = LoadTestConfig(slo=named).latency_limits()
    assert len(limits) == 20
    summary = Distribution.of([1]).summary()
    assert all(hasattr(summary, statistic) for _, statistic in limits)


def test_an_objective_of_its_own_wins_and_the_longest_limit_is_one() -> None:
    slo = "ttft_p50=200ms,ttft_p99=900ms,e2e_p95=4s,goodput=0.9"
    assert LoadTestConfig(slo=slo).objectives() == {"ttft": 900 * MS, "e2e": 4000 * MS}
    assert LoadTestConfig(slo=slo, goodput_ttft="1s").objectives() == {"ttft": 1000 * MS}
    assert LoadTestConfig(slo="ttft_p95=500ms").objectives() == {}
    # The goodput that is asked for may be an option beside the names.
    assert LoadTestConfig(slo="ttft_p95=500ms", min_goodput="95%").objectives() == {"ttft": 500 * MS}


def test_the_line_that_broke_is_told_by_its_name() -> None:
    answers = [record(0, (600 * MS, 1), (610 * MS, 1)), record(0, (700 * MS, 1), (710 * MS, 1))]
    config = LoadTestConfig(slo={**WRITTEN, "e2e_p99.9": "1ms"})
    measurement = measure(
        answers, warmup_ns=0, end_ns=1000 * MS, user_counts=[], objectives=config.objectives()
    )
    reasons = judge_measurement(config, measurement).reasons
    assert "ttft p95 700 ms is above 500 ms (slo: ttft_p95)" in reasons
    assert any(line.startswith("e2e p99.9 ") and line.endswith("(slo: e2e_p99.9)") for line in reasons)
    assert "goodput 0.00 % is below 95.00 % (slo: goodput)" in reasons
    by_option = LoadTestConfig(max_ttft_p95="500ms")
    assert judge_measurement(by_option, measurement).reasons == [
        "ttft p95 700 ms is above 500 ms (--max-ttft-p95)"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"slo": {"ttft_p42": "1s"}},
            r"slo: 'ttft_p42' is unknown; did you mean ttft_p\d\d\? accepted: failu",
        ),
        ({"slo": "max_ttft_p95=1s"}, "slo: 'max_ttft_p95' is unknown; did you mean ttft_p95"),
        (
            {"slo": "speed=1s"},
            "accepted: failure_rate, goodput, and p50, p90, p95, p99, p99.9 of ttft, itl, ",
        ),
        ({"slo": "ttft_p95"}, "slo: 'ttft_p95' is no limit; write NAME=VALUE with commas between them"),
        ({"slo": {"ttft_p95": 500}}, "slo: ttft_p95: '500' is not a duration; write a number with a unit"),
        ({"slo": {"goodput": 95}}, "slo: goodput: 95 is not between 0 and 1"),
        ({"slo": "ttft_p99.9=1s,ttft_p999=1s"}, "slo: ttft_p99.9 is there twice"),
        ({"slo": "goodput=95%,itl_p99=80ms"}, "min_goodput: 0.95 needs an objective"),
        ({"slo": "failure_rate=0", "max_failure_rate": "1%x"}, "max_failure_rate: 1%x is not between"),
        (
            {"slo": "failure_rate=0", "max_failure_rate": 0.2},
            "failure_rate: 0 and max_failure_rate: 0.2 clash",
        ),
        (
            {"slo": "failure_rate=0.1%", "max_failure_rate": 0.01},
            "failure_rate: 0.001 and max_failure_rate: 0.01 clash",
        ),
        ({"slo": "itl_p50=1s", "max_itl_p50": "2s"}, "slo: itl_p50: 1.00 s and max_itl_p50: 2s clash"),
        ({"slo": "lateness_p99=1s"}, "slo: 'lateness_p99' is unknown"),
    ],
)
def test_a_wrong_limit_says_what_is_accepted(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoadTestConfig(**settings)
