"""``trimaran sweep``: which configurations are tried, which one wins, and all of it through real Triton."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkpoints.errors import ConfigError
from loadtests.errors import OutputError
from loadtests.sweep.point import Point
from serving.config import ExportConfig
from serving.export import export
from trimaran import commands
from trimaran.command_parser import parse_command
from trimaran.command_table import COMMANDS
from trimaran.sweep import run as sweep_run
from trimaran.sweep.candidates import make_candidates
from trimaran.sweep.config import ServingSweepConfig
from trimaran.sweep.pareto import Measured, choose, pareto_front
from trimaran.sweep.run import sweep_serving

PAGE = Path(__file__).parents[2] / "docs" / "serving-sweep.md"


def at(name: str, tokens: float, ttft_ms: float | None, outcome: str = "passed") -> Measured:
    ttft = None if ttft_ms is None else round(ttft_ms * 1e6)
    point = Point(
        load=4,
        directory="points/4",
        outcome=outcome,
        reasons=() if outcome == "passed" else ("ttft p95 is above its limit",),
        requests=10,
        failures=0,
        output_tokens_per_second=tokens,
        requests_per_second=1.0,
        ttft_p50_ns=ttft,
        ttft_p95_ns=ttft,
        itl_p99_ns=None,
        e2e_p95_ns=None,
        goodput=None,
    )
    return Measured(name, point)


def names(measured: list[Measured]) -> list[str]:
    return [one.configuration for one in measured]


def test_the_front_holds_what_no_other_point_beats() -> None:
    points = [
        at("slow", 300, 900, "failed"),
        at("good", 200, 100),
        at("same tokens, later", 200, 101),
        at("fewer tokens, as early", 199, 100),
        at("early", 50, 20),
        at("twin", 50, 20),
        at("too good, but not the load asked for", 999, 1, "invalid"),
        at("no answer", 0, None, "failed"),
    ]
    assert names(pareto_front(points)) == ["early", "twin", "good", "slow"]
    assert names(pareto_front(points[::-1])) == ["twin", "early", "good", "slow"]
    assert pareto_front([]) == []


def test_the_choice_has_the_most_tokens_within_the_limits_and_the_lower_ttft_where_equal() -> None:
    points = [at("breaks", 300, 900, "failed"), at("late", 200, 120), at("best", 200, 100), at("low", 50, 20)]
    chosen = choose(points)
    assert chosen is not None
    assert chosen.configuration == "best"
    assert choose([one for one in points if one.point.outcome != "passed"]) is None


def test_a_grid_is_every_combination_and_the_list_comes_after_it(tmp_path: Path) -> None:
    grid: dict[str, list[Any]] = {"queue_delay_us": [0, 1000], "weights": ["bf16", "int8"]}
    found = make_candidates(tmp_path, {"slots": 4}, grid, [{"slots": 8, "instances": 2}])
    assert [one.label for one in found] == [
        "queue_delay_us=0, weights=bf16",
        "queue_delay_us=0, weights=int8",
        "queue_delay_us=1000, weights=bf16",
        "queue_delay_us=1000, weights=int8",
        "slots=8, instances=2",
    ]
    assert (found[1].export.slots, found[1].export.weights, found[1].export.queue_delay_us) == (4, "int8", 0)
    assert (found[4].export.slots, found[4].export.instances) == (8, 2)
    directories = {one.directory("a" * 64) for one in found}
    assert len(directories) == 5
    assert found[0].directory("b" * 64) not in directories


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to try"),
        ({"grid": {"slots": []}}, r"grid\.slots: is empty"),
        ({"grid": {"slotz": [1]}}, "grid: `slotz` is no setting.*did you mean slots"),
        ({"grid": {"checkpoint": ["a"]}}, "grid: `checkpoint` is no setting"),
        ({"grid": {"engine": ["torch", "tensorrt"]}}, "grid: engine: expected one of auto.*'tensorrt'"),
        ({"configurations": [{"slots": "many"}]}, r"configurations\[0\]: slots: expected a whole number"),
        ({"configurations": [{"slots": 0}]}, r"configurations\[0\]: slots is 0; accepted: at least 1"),
        ({"configurations": [{"repository": "x"}]}, "one for all"),
        ({"grid": {"slots": [1]}, "configurations": [{"slots": 1}]}, "there twice"),
        ({"grid": {"slots": [1]}, "protocol": "openai_chat"}, "not spoken by Triton"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_before_anything_is_exported(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ServingSweepConfig(checkpoint=tmp_path, **settings)


@pytest.mark.triton
@pytest.mark.locust
def test_the_sweep_of_the_page_serves_every_configuration_and_skips_one_that_cannot_be(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    # Shorter and on a tiny model, with limits for a busy machine; and one more that no engine can make.
    settings = yaml.safe_load(shown) | {
        "checkpoint": str(tiny_checkpoint), "output": str(tmp_path / "out"), "point_duration": "1s",
        "warmup": "100ms", "max_tokens": 8,
    }  # fmt: skip
    assert (settings["loads"], settings["slo"]) == ([1, 8], {"ttft_p95": "500ms", "failure_rate": 0})
    settings["slo"]["ttft_p95"] = "20s"
    settings["export"] |= {
        "repository": str(tmp_path / "models"), "max_context": 512, "threads": 1, "fidelity": False,
        "infer_model": False, "device": "cpu",
    }  # fmt: skip
    settings["configurations"].append({"engine": "onnx", "weights": "nf4"})
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    assert run(recipe) == 0
    printed = capsys.readouterr().out
    assert "skipped engine=onnx, weights=nf4: " in printed

    output = tmp_path / "out"
    found = json.loads((output / "sweep.json").read_text(encoding="utf-8"))
    assert found["complete"]
    assert found["verdict"]["passed"]
    *served, skipped = found["configurations"]
    assert [one["label"] for one in served] == [
        "queue_delay_us=1000, preferred_batch_sizes=[]",
        "queue_delay_us=1000, preferred_batch_sizes=[4, 8]",
        "engine=openvino, weights=int8, kv_dtype=u8",
    ]
    assert (skipped["curve"], skipped["ended_by"]) == ([], None)
    assert "nf4" in skipped["error"].lower()
    rates: dict[str, float] = {}
    urls = set()
    for one in served:
        assert [point["load"] for point in one["curve"]] == [1, 8]
        for point in one["curve"]:
            assert point["requests"] > 0
            assert point["failures"] == 0
            results = json.loads((output / point["directory"] / "results.json").read_text(encoding="utf-8"))
            assert results["requests"]["ok"] == point["requests"]
            rates[one["label"]] = max(point["output_tokens_per_second"], rates.get(one["label"], 0))
            # What was asked for is what was served.
            model = results["server"]["model_config"]
            # Where none is preferred, Triton prefers the largest.
            preferred = one["settings"].get("preferred_batch_sizes") or [model["max_batch_size"]]
            assert model["dynamic_batching"]["preferred_batch_size"] == preferred
            (engine,) = results["server_metrics"]["engines"]
            assert (engine["weights"] == "int8") == (one["settings"].get("weights") == "int8")
        urls.add(results["config"]["url"])
    assert found["best"]["configuration"] == max(rates, key=lambda label: rates[label])
    # Each had a server of its own, which is gone with its repository.
    assert len(urls) == 3
    assert not (output / "repositories").exists()
    page = (output / "sweep.html").read_text(encoding="utf-8")
    assert page.count('class="dot ') == 6
    assert "engine=onnx, weights=nf4" in page

    # What it says to use is what `trimaran export` takes.
    best, _ = parse_command(COMMANDS["export"], ["--config", str(output / "best.yaml")])
    assert isinstance(best, ExportConfig)
    assert best.checkpoint == tiny_checkpoint
    assert best.repository == tmp_path / "models"
    assert best.max_context == 512
    if best.weights != "int8":
        assert f"preferred_batch_sizes={best.preferred_batch_sizes}" in found["best"]["configuration"]

    # Again: what is measured is kept, nothing is served; other limits of the load are another sweep.
    def no_server(*_: object, **__: object) -> None:
        raise AssertionError("a configuration that is measured is served again")

    monkeypatch.setattr(sweep_run, "TritonServer", no_server)
    assert run(recipe) == 0
    assert capsys.readouterr().out.count("measured already") == 3
    again = json.loads((output / "sweep.json").read_text(encoding="utf-8"))
    assert again["configurations"][:3] == served
    with pytest.raises(OutputError, match="max_tokens: 8, not 9"):
        run(recipe, "--max-tokens", "9")


def run(recipe: Path, *more: str) -> int:
    config, _ = parse_command(COMMANDS["sweep"], ["--config", str(recipe), *more])
    return commands.sweep(config)


def test_none_within_the_limits_is_a_failed_verdict_and_ctrl_c_keeps_what_is_there(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # onnx has no NF4: refused by the real export, before any server.
    config = ServingSweepConfig(
        checkpoint=tiny_checkpoint, output=tmp_path / "out",
        configurations=[{"engine": "onnx", "weights": "nf4"}, {"slots": 2}],
    )  # fmt: skip

    def cut_by_ctrl_c(one: ExportConfig) -> Path:
        if one.slots == 2:
            raise KeyboardInterrupt
        return export(one)

    monkeypatch.setattr(sweep_run, "export", cut_by_ctrl_c)
    monkeypatch.setattr(sweep_run, "find_triton", lambda: None)  # nothing gets so far as to be served
    result = sweep_serving(config, lambda _: None)
    assert result.interrupted
    assert (result.outcome, result.reasons) == ("failed", ["no configuration was measured"])
    found = json.loads((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert not found["complete"]
    assert len(found["configurations"]) == 1
    assert not (tmp_path / "out" / "best.yaml").exists()
    assert not (tmp_path / "out" / "repositories").exists()
    with pytest.raises(KeyboardInterrupt):
        commands.sweep(config)
    config.configurations = [{"engine": "onnx", "weights": "nf4"}]
    assert commands.sweep(config) == 1
