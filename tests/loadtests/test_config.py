from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.config import LoadTestConfig
from loadtests.config_json import config_from_json, config_to_json
from loadtests.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "telnet"}, "protocol: 'telnet' is unknown; known: generate, generate_stream, grpc"),
        ({"url": "ftp://host"}, "url: 'ftp://host' is not an address"),
        ({"url": "http://host:port"}, "url: 'http://host:port' cannot be read"),
        ({"url": "http://me:secret@host"}, "url: leave name and password out"),
        ({"model": ""}, "model: the name is empty"),
        ({"users": 0}, "users: 0 is too small"),
        ({"max_tokens": -1}, "max_tokens: -1 is too small"),
        ({"max_requests": 0}, "max_requests: 0 is too small"),
        ({"spawn_rate": 0.0}, "spawn_rate: 0.0 must be above 0"),
        ({"temperature": float("nan")}, "temperature: nan is not between"),
        ({"max_failure_rate": "few"}, "max_failure_rate: few is not between 0 and 1"),
        ({"max_failure_rate": 1.5}, "max_failure_rate: 1.5 is not between 0 and 1"),
        ({"duration": "soon"}, "duration: 'soon' is not a duration"),
        ({"warmup": "1m"}, "warmup: 1m leaves nothing of duration: 30s"),
        ({"max_itl_p99": "80"}, "max_itl_p99: '80' is not a duration"),
        ({"stop_timeout": "-1s"}, "stop_timeout: '-1s' is not a duration"),
        (
            {"arrivals": "random"},
            "arrivals: 'random' is unknown; known: closed, constant, poisson, gamma, trace",
        ),
        ({"arrivals": "poisson"}, "rate: arrivals: poisson needs requests per second"),
        ({"rate": 8}, "rate: 8 has no meaning with arrivals: closed; it works with arrivals: constant"),
        ({"arrivals": "poisson", "rate": "1,x"}, "rate: 'x' is not a stage"),
        ({"arrivals": "gamma", "rate": 8}, "burstiness: arrivals: gamma needs it"),
        ({"arrivals": "gamma", "rate": 8, "burstiness": 0.0}, "burstiness: 0.0 is not above 0"),
        ({"arrivals": "constant", "rate": 8, "burstiness": 1.0}, "burstiness: 1.0 has no meaning with"),
        ({"arrivals": "constant", "rate": 8, "spawn_rate": 1.0}, "spawn_rate: 1.0 has no meaning with"),
        ({"arrivals": "trace"}, "trace: arrivals: trace needs a file"),
        ({"trace": Path("t.csv")}, "trace: t.csv has no meaning with arrivals: closed"),
        (
            {"arrivals": "constant", "rate": 8, "think_time": "1s"},
            "think_time: 1s has no meaning with arrivals: constant",
        ),
        ({"trace_speed": 0.0}, "trace_speed: 0.0 must be above 0"),
        ({"max_lateness_p99": "0s"}, "max_lateness_p99: '0s' must be longer than zero"),
        ({"cooldown": "25s", "warmup": "5s"}, "cooldown: 25s and warmup: 5s leave nothing of duration: 30s"),
        ({"min_goodput": 0.9}, "min_goodput: 0.9 needs an objective that requests meet"),
        ({"min_goodput": 95.0, "goodput_ttft": "1s"}, "min_goodput: 95.0 is not between 0 and 1"),
        ({"goodput_e2e": "quick", "min_goodput": 0.9}, "goodput_e2e: 'quick' is not a duration"),
        ({"max_regression": -0.1}, "max_regression: -0.1 is not between 0 and 10"),
        ({"url": "http://a,http://a"}, "url: 'http://a,http://a' names one address twice"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        LoadTestConfig(**settings)
    assert str(raised.value).startswith(message)


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as raised:
        LoadTestConfig(url="http://me:secret@host")
    assert "secret" not in str(raised.value)


def test_limits_are_collected_by_metric_and_statistic() -> None:
    config = LoadTestConfig(max_ttft_p95="500ms", max_e2e_p99="4s")
    assert config.latency_limits() == {("ttft", "p95"): 500_000_000, ("e2e", "p99"): 4_000_000_000}


def test_settings_survive_the_way_to_the_child_process(tmp_path: Path) -> None:
    config = LoadTestConfig(prompts=tmp_path / "p.jsonl", users=3, spawn_rate=1.5, max_itl_p50="40ms")
    assert config_from_json(config_to_json(config)) == config
    config = LoadTestConfig(workload="synthetic", tokenizer=tmp_path, input_tokens=200, top_k=5)
    assert config_from_json(config_to_json(config)) == config
    replay = LoadTestConfig(arrivals="trace", trace=tmp_path / "t.jsonl", trace_speed=1000.0)
    assert config_from_json(config_to_json(replay)) == replay
    ramp = LoadTestConfig(arrivals="gamma", rate="1..9", burstiness=0.5)
    assert config_from_json(config_to_json(ramp)) == ramp


def test_an_open_loop_has_users_enough_unless_told() -> None:
    assert LoadTestConfig().user_count == 8
    assert LoadTestConfig(arrivals="poisson", rate=2.0).user_count == 256
    assert LoadTestConfig(arrivals="poisson", rate=2.0, users=5).user_count == 5


def test_a_rate_may_be_a_number_in_yaml() -> None:
    assert LoadTestConfig(arrivals="poisson", rate=8.0) == LoadTestConfig(arrivals="poisson", rate="8")


@pytest.mark.parametrize(("written", "share"), [("0.1%", 0.001), ("95%", 0.95), (0.25, 0.25), ("0.25", 0.25)])
def test_a_share_may_be_written_in_percent(written: float | str, share: float) -> None:
    config = LoadTestConfig(max_failure_rate=written, min_goodput=written, goodput_ttft="1s")
    assert config.failure_limit == pytest.approx(share)
    assert isinstance(config_to_json(config)["max_failure_rate"], float)
    assert config.goodput_limit == pytest.approx(share)
