"""Two tasks in a row: what is kept, what a run goes on from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints.errors import CheckpointError, ConfigError
from checkpoints.manifest import manifest_sha256, read_manifest
from tests.training.moe.mixtures import train_until
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.config import TrainConfig
from training.ewc.config import EwcSettings
from training.ewc.store import read_importance
from training.methods.bottleneck.config import BottleneckSettings
from training.methods.lora.config import LoraSettings
from training.metrics import read_metrics
from training.run import train

STEPS = 16


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rows of two tasks that cannot both be learned by rote: other answers to the same questions."""
    folder = tmp_path_factory.mktemp("tasks")
    first, second = chat_rows(16), chat_rows(16)
    for row in second:
        row["messages"][1]["content"] = "The lazy dog jumps over it."
    return write_jsonl(folder / "a.jsonl", first), write_jsonl(folder / "b.jsonl", second)


@pytest.fixture(scope="module")
def first(tiny_llama_dir: Path, tasks: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUTPUT of a run on task A that saved its importances."""
    output = tmp_path_factory.mktemp("first") / "run"
    train(tiny_config(tiny_llama_dir, tasks[0], output, max_steps=20, ewc=EwcSettings(save=True, samples=12)))
    return output


def second(
    model: Path, tasks: tuple[Path, Path], first: Path, output: Path, *, weight: float | None, **more: Any
) -> TrainConfig:
    """A run on task B from the first's adapter, evaluated on task A; without a weight, without EWC."""
    ewc = EwcSettings() if weight is None else EwcSettings(from_run=first, weight=weight)
    settings = {
        "adapter": first / "adapter",
        "ewc": ewc,
        "max_steps": STEPS,
        "warmup_steps": 10,
        "learning_rate": 5e-3,
        "rows": {"eval": tasks[0]},
        **more,
    }
    return tiny_config(model, tasks[1], output, **settings)


def moved(first: Path, adapter: Path) -> float:
    """How far the weights are from the first run's, each by its importance."""
    before = read_importance(first)
    weights = load_file(adapter / "adapter_model.safetensors")
    return sum(
        float((before.fisher[name] * (weights[name.replace(".default", "")] - value) ** 2).sum())
        for name, value in before.values.items()
    )


@pytest.fixture(scope="module")
def runs(
    tiny_llama_dir: Path, tasks: tuple[Path, Path], first: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[float | None, Path]:
    """OUTPUT of task B by the weight."""
    folder = tmp_path_factory.mktemp("runs")
    outputs = {weight: folder / str(weight) for weight in (None, 0.0, 1e3, 1e6)}
    for weight, output in outputs.items():
        train(second(tiny_llama_dir, tasks, first, output, weight=weight))
    return outputs


def test_less_is_forgotten_with_it(runs: dict[float | None, Path]) -> None:
    rows = {weight: read_metrics(output / "metrics.jsonl") for weight, output in runs.items()}
    forgotten = {weight: lines[-1]["eval_loss"] for weight, lines in rows.items()}
    assert forgotten[1e3] < 0.7 * forgotten[None]
    assert rows[1e3][-1]["loss"] < 0.8 * rows[1e3][0]["loss"], "the second task is learned all the same"
    assert [row["loss"] for row in rows[0.0]] == [row["loss"] for row in rows[None]]
    assert rows[1e3][0]["ewc_penalty"] == 0
    assert rows[1e3][-1]["ewc_penalty"] > 0
    assert "ewc_penalty" not in rows[None][1]


def test_with_a_huge_weight_the_parameters_stay(runs: dict[float | None, Path], first: Path) -> None:
    distances = {weight: moved(first, output / "adapter") for weight, output in runs.items()}
    assert distances[1e6] < distances[1e3] < distances[None]
    assert distances[1e6] < 0.02 * distances[None]


def test_gradient_accumulation_changes_nothing(
    tiny_llama_dir: Path,
    tasks: tuple[Path, Path],
    first: Path,
    tmp_path: Path,
    runs: dict[float | None, Path],
) -> None:
    train(
        second(
            tiny_llama_dir,
            tasks,
            first,
            tmp_path / "split",
            weight=1e3,
            batch_size=1,
            gradient_accumulation=4,
        )
    )
    whole, split = (read_metrics(path / "metrics.jsonl") for path in (runs[1e3], tmp_path / "split"))
    for key in ("loss", "grad_norm", "ewc_penalty"):
        assert [row[key] for row in split] == pytest.approx(
            [row[key] for row in whole], rel=2e-3, abs=1e-7
        ), key


def test_a_run_that_was_cut_continues_as_if_it_had_not(
    tiny_llama_dir: Path,
    tasks: tuple[Path, Path],
    first: Path,
    tmp_path: Path,
    runs: dict[float | None, Path],
) -> None:
    config = second(tiny_llama_dir, tasks, first, tmp_path / "cut", weight=1e3)
    train_until(config, 5)
    with pytest.raises(ConfigError, match=r"ewc was .*, now it is None"):
        train(second(tiny_llama_dir, tasks, first, tmp_path / "cut", weight=1e3, ewc=EwcSettings(weight=1e3)))
    with pytest.raises(ConfigError, match=r"adapter was .*, now it is"):
        changed = second(tiny_llama_dir, tasks, first, tmp_path / "cut", weight=1e3)
        changed.adapter = runs[None] / "adapter"
        train(changed)
    train(config)
    rows, expected = (read_metrics(path / "metrics.jsonl") for path in (tmp_path / "cut", runs[1e3]))
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for key in ("loss", "ewc_penalty"):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in expected], rel=1e-4, abs=1e-9)


def test_a_run_cut_off_while_it_estimates_goes_on_there(
    tiny_llama_dir: Path, tasks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    ewc = EwcSettings(save=True, samples=4)
    cut, straight = (
        tiny_config(tiny_llama_dir, tasks[0], tmp_path / name, max_steps=3, ewc=ewc) for name in ("a", "b")
    )
    monkeypatch.setattr("training.run.measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(cut)
    monkeypatch.undo()
    assert not (tmp_path / "a" / "adapter").exists()
    train(cut)
    train(straight)
    one, other = (read_importance(tmp_path / name).fisher for name in ("a", "b"))
    for name, fisher in one.items():
        torch.testing.assert_close(fisher, other[name], rtol=1e-3, atol=1e-9)


def test_what_is_saved_remembers_the_runs_before(
    tiny_llama_dir: Path, tasks: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    for decay in (0.0, 0.5):
        ewc = EwcSettings(save=True, samples=4, from_run=first, weight=1.0, decay=decay)
        train(second(tiny_llama_dir, tasks, first, tmp_path / str(decay), weight=1.0, ewc=ewc, max_steps=2))
    before, alone, both = (read_importance(run).fisher for run in (first, tmp_path / "0.0", tmp_path / "0.5"))
    for name, fisher in both.items():
        torch.testing.assert_close(fisher, alone[name] + 0.5 * before[name], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", ["lora", "bottleneck"])
def test_a_run_goes_on_from_an_adapter_and_says_so(
    method: str, tiny_llama_dir: Path, tasks: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"method": method, "bottleneck": BottleneckSettings(size=16)}
    start = first / "adapter"
    if method != "lora":
        start = train(tiny_config(tiny_llama_dir, tasks[0], tmp_path / "a", max_steps=3, **settings))
    settings |= {"adapter": start, "max_steps": 1, "learning_rate": 1e-12}
    adapter = train(tiny_config(tiny_llama_dir, tasks[1], tmp_path / "b", **settings))
    one, other = (load_file(path / "adapter_model.safetensors") for path in (start, adapter))
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor)
    parent = read_manifest(adapter).parent
    assert parent is not None
    assert (parent.name, parent.manifest_sha256) == ("adapter", manifest_sha256(start))


def test_full_fine_tuning_goes_on_from_its_checkpoint(
    tiny_llama_dir: Path, tasks: tuple[Path, Path], tmp_path: Path
) -> None:
    """The result is in bf16, so the second run starts from weights that were rounded, and are not held so."""
    settings: dict[str, Any] = {"method": "full", "dtype": "bf16", "learning_rate": 1e-3, "max_steps": 3}
    ewc = EwcSettings(save=True, samples=4)
    checkpoint = train(tiny_config(tiny_llama_dir, tasks[0], tmp_path / "a", ewc=ewc, **settings))
    ewc = EwcSettings(from_run=tmp_path / "a", weight=10.0)
    train(tiny_config(checkpoint, tasks[1], tmp_path / "b", ewc=ewc, **settings))
    rows = read_metrics(tmp_path / "b" / "metrics.jsonl")
    assert rows[0]["ewc_penalty"] == 0
    assert rows[-1]["ewc_penalty"] > 0
    with pytest.raises(ConfigError, match=r"does not start from .*; set model = .*/a/checkpoint"):
        train(tiny_config(tiny_llama_dir, tasks[1], tmp_path / "c", ewc=ewc, **settings))


def test_what_does_not_fit_is_refused_by_name(
    tiny_llama_dir: Path, tasks: tuple[Path, Path], first: Path, tmp_path: Path
) -> None:
    def refused(match: str, error: type[Exception] = ConfigError, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            train(tiny_config(tiny_llama_dir, tasks[1], tmp_path / "run", **settings))

    ewc, adapter = EwcSettings(from_run=first), first / "adapter"
    refused(
        r"lora\.rank = 4, but adapter = .* was trained with 8", adapter=adapter, lora=LoraSettings(rank=4)
    )
    refused(r"lora\.alpha = 9", adapter=adapter, lora=LoraSettings(rank=8, alpha=9))
    refused(
        r"trained with method = lora, this run is method = bottleneck", adapter=adapter, method="bottleneck"
    )
    refused(r"clash: it trains the model itself", adapter=adapter, method="full")
    refused(r"does not start from .*; set adapter = .*/adapter", ewc=ewc)
    refused(r"trained other weights.*only there: .*of another shape", ewc=ewc,
            lora=LoraSettings(rank=4, target_modules=["q_proj"]))  # fmt: skip
    refused(r"has no ewc/fisher", CheckpointError, ewc=EwcSettings(from_run=tmp_path))
    refused(r"is not a finished checkpoint", CheckpointError, adapter=tmp_path)
    with pytest.raises(ConfigError, match=r"lies in output = .*, which this run would overwrite"):
        tiny_config(tiny_llama_dir, tasks[1], first, ewc=ewc)


@pytest.mark.parametrize(
    ("name", "value"), [("samples", 0), ("weight", -1.0), ("weight", float("nan")), ("decay", 1.5)]
)
def test_a_setting_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"ewc\.{name} = {value}: must be "):
        EwcSettings(**{name: value})  # type: ignore[arg-type]


def test_a_run_that_was_cut_before_its_importances_were_written_is_not_finished(
    tiny_llama_dir: Path, tasks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    config = tiny_config(tiny_llama_dir, tasks[0], tmp_path / "out", ewc=EwcSettings(save=True))
    monkeypatch.setattr("training.run.save", cut)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert (tmp_path / "out" / "adapter").is_dir()
    monkeypatch.undo()
    result = train(config)
    assert read_importance(tmp_path / "out").fisher
    assert read_manifest(result, verify=True)
