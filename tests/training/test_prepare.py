"""From what the config names to a run: other files with the same rows give the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

import training.run as run
from checkpoints.errors import ConfigError
from checkpoints.manifest import file_sha256, read_manifest
from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.metrics import read_metrics
from training.run import train


def test_a_folder_of_parquet_trains_as_the_same_rows_in_jsonl(tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows, held_out = chat_rows(16)[:12], chat_rows(16)[12:]
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    parts = {"train-00000-of-00002": rows[:5], "train-00001-of-00002": rows[5:], "validation-00000": held_out}
    for name, part in parts.items():
        parquet.write_table(pyarrow.Table.from_pylist(part), folder / f"{name}.parquet")
    lines = write_jsonl(tmp_path / "rows.jsonl", rows), write_jsonl(tmp_path / "eval.jsonl", held_out)

    found = []
    for name, (data, evaluation) in {"jsonl": lines, "parquet": (folder.parent, folder.parent)}.items():
        output = tmp_path / name
        settings = {"max_steps": 3, "save_steps": 100, "rows": {"eval": evaluation}}
        manifest = read_manifest(train(tiny_config(tiny_llama_dir, data, output, **settings)))
        metrics = read_metrics(output / "metrics.jsonl")
        figures = json.loads((output / "data.json").read_text(encoding="utf-8"))
        found.append(([row["loss"] for row in metrics], metrics[-1]["eval_loss"], figures["training"]))
        assert sum(item.rows for item in manifest.training_data) == 12
        assert all(item.sha256 == file_sha256(Path(item.path)) for item in manifest.training_data)
    assert found[0] == found[1]


def test_rows_to_evaluate_on_are_not_trained_on(
    tiny_llama_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever form and place they have in the training rows."""
    rows = chat_rows(12)
    data = write_jsonl(tmp_path / "rows.jsonl", [*rows, {**rows[3], "id": 7}])
    turns = rows[3]["messages"]
    shared = [
        {"from": name, "value": turn["content"]} for name, turn in zip(("human", "gpt"), turns, strict=True)
    ]
    evaluation = write_jsonl(tmp_path / "eval.jsonl", [{"conversations": shared}])

    output = tmp_path / "run"
    train(tiny_config(tiny_llama_dir, data, output, max_steps=1, rows={"eval": evaluation}))
    figures = json.loads((output / "data.json").read_text(encoding="utf-8"))
    assert (figures["read"]["rows_read"], figures["read"]["also_evaluated"]) == (13, 2)
    assert (figures["training"]["rows"], figures["evaluation"]["rows"]) == (11, 1)
    assert "2 of 13 training rows are in data.eval as well; they are not trained on" in caplog.text
    with pytest.raises(
        ConfigError, match=r"all 13 training rows are in data\.eval = .* as well.*eval_fraction"
    ):
        train(tiny_config(tiny_llama_dir, data, tmp_path / "other", rows={"eval": data}))


def test_a_run_that_trained_on_rows_to_evaluate_on_is_not_resumed_without_them(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of an older version, whose record says nothing of such rows."""

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(4))
    for name, evaluated in {"overlaps": chat_rows(4)[1:2], "does-not": chat_rows(5)[4:]}.items():
        settings = {"max_steps": 1, "rows": {"eval": write_jsonl(tmp_path / f"{name}.jsonl", evaluated)}}
        config = tiny_config(tiny_llama_dir, data, tmp_path / name, **settings)
        with monkeypatch.context() as patched:
            patched.setattr(run, "write_adapter", stop)
            with pytest.raises(KeyboardInterrupt):
                train(config)
        record = tmp_path / name / "run.json"
        recorded = json.loads(record.read_text(encoding="utf-8"))
        assert recorded.pop("also_evaluated") == (name == "overlaps")
        whole = record.read_text(encoding="utf-8")
        record.write_text(json.dumps(recorded), encoding="utf-8")
        if name == "overlaps":
            with pytest.raises(ConfigError, match=r"also_evaluated was 0, now it is 1"):
                train(config)
            record.write_text(whole, encoding="utf-8")
        assert train(config).is_dir()
