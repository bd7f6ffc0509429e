"""The runs of a folder: in order, comparable ones together, what is no run left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from loadtests.errors import ConfigError, OutputError
from loadtests.history.config import HistoryConfig
from loadtests.history.run import history
from tests.loadtests.sample_run import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one load, the last of which failed, and one of another load."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "c", seed=1)  # its name would come last
    write_run(folder / "b", seed=2, slower=1.5)
    write_run(folder / "nested" / "a", seed=3, slower=2.0, max_ttft_p50="100ms")
    write_run(folder / "more-users", seed=4, users=32)
    (folder / ".half.tmp-1").mkdir()
    (folder / ".half.tmp-1" / "results.json").write_text("{}")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "results.json").write_text('{"other": "tool"}')
    return folder


def test_runs_come_oldest_first_with_their_figures(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = json.loads(history(HistoryConfig(folder, json=True)).as_json())
    assert [Path(run["path"]).name for run in found] == ["c", "b", "a", "more-users"]
    assert [run["outcome"] for run in found] == ["passed", "passed", "failed", "passed"]
    assert found[2]["reasons"][0].startswith("ttft p50")
    for run in found:
        results = json.loads((Path(run["path"]) / "results.json").read_text(encoding="utf-8"))
        assert run["ttft_p95"] == results["metrics"]["ttft"]["p95"]
        assert run["output_tokens_per_second"] == results["totals"]["output_tokens_per_second"]["value"]
        assert run["goodput"] is None
    assert found[0]["ttft_p50"] < found[1]["ttft_p50"] < found[2]["ttft_p50"]
    (warning,) = caplog.messages
    assert "foreign" in warning


def test_the_table_keeps_loads_apart(folder: Path) -> None:
    lines = history(HistoryConfig(folder)).as_text().splitlines()
    heads = [line for line in lines if line.startswith("llm: ")]
    asked = "generate_stream, packaged mix, max_tokens 64, temperature 0"
    assert heads == [f"llm: 8 users, {asked}", f"llm: 32 users, {asked}"]
    rows = [line for line in lines if re.search(r"(passed|failed)$", line) and not line.startswith("run ")]
    assert [row.split()[0] for row in rows] == ["c", "b", "nested/a", "more-users"]
    assert len({len(row) for row in rows}) == 1


def test_only_the_newest_or_one_model(folder: Path) -> None:
    assert [run.path.name for run in history(HistoryConfig(folder, last=2)).runs] == ["a", "more-users"]
    with pytest.raises(OutputError, match=r"model: no run of 'gpt' in .*; there are: llm"):
        history(HistoryConfig(folder, model="gpt"))
    with pytest.raises(ConfigError, match="last: 0 is too small"):
        history(HistoryConfig(folder, last=0))


def test_the_page_shows_the_trend(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "history.html"
    found = history(HistoryConfig(folder, page=page))
    source = page.read_text(encoding="utf-8")
    assert source.count("<svg") == 4  # four figures of three runs; the only run of its load is no trend
    assert source.count('class="dot bad"') == 4 + 3  # the failed run, on seven lines
    for run in found.runs:
        assert run.path.name in source
    assert "did not pass" in source
    assert "ttft p50" in source
    assert not re.search(r'(src|href)="', source)
    with pytest.raises(OutputError, match="exists already"):
        history(HistoryConfig(folder, page=page))
    history(HistoryConfig(folder, page=page, overwrite=True))
    assert [path.name for path in page.parent.iterdir()] == ["history.html"]


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        history(HistoryConfig(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match="holds no run of `trimaran loadtest`"):
        history(HistoryConfig(tmp_path))


def test_undefined_figures_are_missing_and_not_zero(tmp_path: Path) -> None:
    for seed in (1, 2):
        run = write_run(tmp_path / f"run-{seed}", seed=seed)
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        results["metrics"] |= {"ttft": None, "itl": None}
        (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    found = history(HistoryConfig(tmp_path, page=tmp_path / "history.html"))
    assert found.runs[0].ttft_p50 is None
    assert found.as_text().count("–") == 2 * 3
    assert (tmp_path / "history.html").read_text(encoding="utf-8").count("<svg") == 2
