"""Prometheus's configuration, rules and alerts, checked by promtool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.triton_metrics import HISTOGRAM_BUCKETS
from tests.deploy.monitoring.promql import DEPLOY, alerts, bound, rules, selectors

PROMETHEUS = DEPLOY / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid_and_finds_the_rules(promtool: str) -> None:
    shown = run(promtool, "check", "config", "--lint=all", "--lint-fatal", PROMETHEUS / "prometheus.yml")
    assert f"{len(RULE_FILES)} rule files found" in shown


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_are_silent_otherwise(promtool: str, path: Path) -> None:
    run(promtool, "test", "rules", path)


def test_a_wrong_threshold_fails_the_unit_tests(promtool: str, tmp_path: Path) -> None:
    """The unit tests can fail: a queue that is 94% full is made one that is not nearly full."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    rule_text = (PROMETHEUS / "rules" / "serving.yml").read_text(encoding="utf-8")
    assert rule_text.count("> 0.8") == 1
    (tmp_path / "rules" / "serving.yml").write_text(rule_text.replace("> 0.8", "> 0.98"), encoding="utf-8")
    test = tmp_path / "tests" / "serving_test.yml"
    test.write_text((PROMETHEUS / "tests" / "serving_test.yml").read_text(encoding="utf-8"), encoding="utf-8")
    command = [promtool, "test", "rules", str(test)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode != 0
    assert "TrimaranQueueNearlyFull" in done.stdout + done.stderr


def test_every_alert_is_tested_firing() -> None:
    shown_firing: set[str] = set()
    for path in UNIT_TESTS:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for check in case["promql_expr_test"]:
                for sample in check["exp_samples"]:
                    shown_firing |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
    assert shown_firing == {alert["alert"] for alert in alerts()}


def test_recorded_names_are_recorded_once_per_labels() -> None:
    records = [(rule["record"], str(rule.get("labels"))) for rule in rules() if "record" in rule]
    assert len(records) == len(set(records))
    known = {name for name, _ in records}
    for rule in rules():
        asked = {selector.name for selector in selectors(rule["expr"]) if ":" in selector.name}
        assert asked <= known, rule


@pytest.mark.parametrize("rule", [rule for rule in rules() if "_bucket{" in rule["expr"]], ids=str)
def test_a_latency_bound_is_an_edge_of_its_histogram(rule: dict[str, Any]) -> None:
    """A bound between two edges selects no series, and the objective would see nothing."""
    edges = [
        (selector.name.removesuffix("_bucket"), bound(selector))
        for selector in selectors(rule["expr"])
        if selector.name.endswith("_bucket")
    ]
    assert edges
    for name, edge in edges:
        assert edge in HISTOGRAM_BUCKETS[name]


def test_counts_are_sums_over_the_interval_that_the_group_states() -> None:
    """``increase1h`` multiplies by the seconds between two samples: the group's interval."""
    groups = yaml.safe_load((PROMETHEUS / "rules" / "slo.yml").read_text(encoding="utf-8"))["groups"]
    group = next(group for group in groups if group["name"] == "trimaran-slo")
    seconds = int(group["interval"].removesuffix("s"))
    counted = [rule["expr"] for rule in group["rules"] if ":increase1" in rule.get("record", "")]
    assert len(counted) == 2
    assert all(expression.endswith(f"* {seconds}") for expression in counted)
