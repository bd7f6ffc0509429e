"""The runbook and the page on monitoring, against what is deployed."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from serving.config import ExportConfig, LoadConfig
from tests.deploy.monitoring.promql import (
    GPU_ONLY,
    OF_PROMETHEUS,
    ROOT,
    alerts,
    bound,
    dashboard_queries,
    rules,
    selectors,
)

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.M | re.S))


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_names_its_section_which_says_how_urgent_it_is(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert alert["annotations"]["summary"]
    section = SECTIONS[name]
    assert section.strip().startswith(f"**{alert['labels']['severity']}.**")
    # How to confirm and what to do, or the section that says so.
    assert "- Confirm:" in section or "](#" in section


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert list(SECTIONS) == [*dict.fromkeys(SECTIONS)]
    assert set(SECTIONS) == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("text", [RUNBOOK, MONITORING], ids=["runbook", "monitoring"])
def test_links_and_files_lead_somewhere(text: str) -> None:
    for anchor in re.findall(r"\]\(#([\w-]+)\)", text):
        assert anchor in {name.lower() for name in SECTIONS}
    for path in re.findall(r"\]\(([\w.]+\.md)\)", text):
        assert (ROOT / "docs" / path).is_file()
    for path in re.findall(r"`(deploy/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_panels_that_the_runbook_names_exist() -> None:
    titles = {title for title, _ in dashboard_queries()}
    named = set(re.findall(r"\*([A-Z][\w ,']+)\*(?!\*)", RUNBOOK.replace("**", "")))
    elsewhere = {"Trimaran serving", "Errors and restarts", "Status, Targets", "Status, Rules"}
    assert named - elsewhere <= titles


def test_options_that_the_runbook_names_exist() -> None:
    options = set(re.findall(r"`(?:export )?--([a-z-]+)`", RUNBOOK))
    assert options
    known = (*fields(ExportConfig), *fields(LoadConfig))
    assert options <= {field.name.replace("_", "-") for field in known}


def test_objectives_are_those_of_the_rules() -> None:
    budgets = {
        rule["labels"]["slo"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in rules()
        if rule.get("record") == "trimaran:slo_error_budget:ratio"
    }
    stated = {
        name: float(share) / 100
        for name, share in re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+)% \|$", MONITORING, re.M)
    }
    assert stated == pytest.approx(budgets)
    bounds = {
        rule["labels"]["slo"]: bound(selector)
        for rule in rules()
        for selector in selectors(rule["expr"])
        if selector.name.endswith("_bucket")
    }
    assert len(bounds) == 2
    for name, seconds in bounds.items():
        (told,) = re.findall(rf"^\| `{name}` \| .* later than ([\d.]+) s \|", MONITORING, re.M)
        assert float(told) == seconds


def test_every_metric_of_triton_that_is_used_is_explained() -> None:
    expressions = [rule["expr"] for rule in rules()] + [query for _, query in dashboard_queries()]
    used = {one.name for expression in expressions for one in selectors(expression)}
    told = set(re.findall(r"`(nv_\w+)`", MONITORING))
    assert {name for name in used if name.startswith("nv_")} == told
    assert told >= GPU_ONLY
    assert not OF_PROMETHEUS & told
