"""The evaluation split: by file or by share, and the same for one seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints.errors import ConfigError
from tests.training.rows import write_jsonl
from training.data.config import DataConfig
from training.data.split import load_split


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", [{"text": f"row {number}"} for number in range(20)])


def texts(config: DataConfig, seed: int = 0) -> tuple[list[str], list[str]]:
    train, evaluation = load_split(config, seed=seed)
    return [row.text for row in train], [row.text for row in evaluation]


def test_no_evaluation_unless_asked(data: Path) -> None:
    train, evaluation = texts(DataConfig(train=data))
    assert (len(train), evaluation) == (20, [])


def test_a_share_is_held_out_by_the_seed(data: Path) -> None:
    config = DataConfig(train=data, eval_fraction=0.2)
    train, evaluation = texts(config)
    assert len(evaluation) == 4
    assert sorted(train + evaluation) == sorted(texts(DataConfig(train=data))[0])
    assert texts(config) == (train, evaluation)
    assert texts(config, seed=1)[1] != evaluation


def test_an_eval_file_leaves_the_training_rows_alone(data: Path, tmp_path: Path) -> None:
    held_out = write_jsonl(tmp_path / "eval.jsonl", [{"prompt": "a", "completion": "b"}])
    train, evaluation = load_split(DataConfig(train=data, eval=held_out), seed=0)
    assert len(train) == 20
    assert [row.completion for row in evaluation] == ["b"]


def test_several_files_of_several_formats(data: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [{"prompt": "a", "completion": "b"}])
    train, _ = load_split(DataConfig(train=[data, other]), seed=0)
    assert [row.format for row in train] == ["text"] * 20 + ["prompt_completion"]


def test_a_share_that_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": "a"}])
    with pytest.raises(ConfigError, match=r"data.eval_fraction = 0.5 of 1 row"):
        load_split(DataConfig(train=one, eval_fraction=0.5), seed=0)
