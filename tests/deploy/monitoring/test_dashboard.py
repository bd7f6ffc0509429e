"""The Grafana dashboard and its provisioning files."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.monitoring.promql import DEPLOY, GPU_ONLY, dashboard_queries, rules, selectors, substitute

GRAFANA = DEPLOY / "grafana"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    text = (GRAFANA / "dashboards" / "trimaran.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_the_json_is_what_the_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GRAFANA))
    written = (GRAFANA / "dashboards" / "trimaran.json").read_text(encoding="utf-8")
    made = importlib.import_module("build_dashboard").render()
    assert made == written, "run: python deploy/grafana/build_dashboard.py"


def test_panels_have_their_own_ids_and_places(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells


def test_every_panel_asks_the_chosen_data_source_and_explains_itself(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["targets"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "model", "version", "instance"]


def test_every_query_is_promql(promtool: str, tmp_path: Path) -> None:
    """Variables get values and each query becomes a recording rule, which promtool parses."""
    made = [
        {"record": f"query:{number}", "expr": substitute(expression)}
        for number, (_, expression) in enumerate(dashboard_queries())
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}), encoding="utf-8")
    command = [promtool, "check", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(made)} rules found" in done.stdout


def test_recorded_metrics_are_recorded() -> None:
    records = {rule["record"] for rule in rules() if "record" in rule}
    for title, expression in dashboard_queries():
        asked = {selector.name for selector in selectors(expression) if ":" in selector.name}
        assert asked <= records, title


def test_what_needs_a_gpu_stands_in_a_row_that_says_so(dashboard: dict[str, Any]) -> None:
    row = ""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        asked = {one.name for target in panel.get("targets", []) for one in selectors(target["expr"])}
        assert bool(asked & GPU_ONLY) == (panel["type"] != "row" and row.startswith("GPU (empty"))


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = GRAFANA / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (one,) = source["datasources"]
    assert one["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "trimaran.yml").read_text(encoding="utf-8"))[
        "providers"
    ]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
