"""States that newer ones make useless go, and only when the disk holds the newer one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.training.rows import chat_rows, tiny_config, write_jsonl
from training.run import train
from training.state_files import is_complete


def test_old_states_go_by_step_when_the_new_one_is_on_the_disk(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times say nothing after a copy of the run, or where the clock was set back."""
    data = write_jsonl(tmp_path / "rows.jsonl", chat_rows(20))
    on_disk: dict[str, set[str]] = {}
    states = tmp_path / "run" / "checkpoints"

    def sync(made: Path) -> None:
        # What is there when it is made sure of: of a state all but the file that says that it is complete,
        # then that file.
        state = made if made.is_dir() else made.parent
        assert (state / "trainer_state.json").exists() == (made != state)
        on_disk[str(made.relative_to(states))] = {path.name for path in states.iterdir()}
        os.utime(state, (4e9 - len(on_disk), 4e9 - len(on_disk)))

    monkeypatch.setattr("training.ordered_trainer.sync_tree", sync)
    monkeypatch.setattr("training.callbacks.state_rotation.sync_file", sync)
    train(tiny_config(tiny_llama_dir, data, tmp_path / "run", max_steps=3, save_steps=1, save_total_limit=1))
    assert [path.name for path in states.iterdir()] == ["checkpoint-3"]
    assert on_disk == {
        "checkpoint-1": {"checkpoint-1"},
        "checkpoint-1/trainer_state.json": {"checkpoint-1"},
        "checkpoint-2": {"checkpoint-1", "checkpoint-2"},
        "checkpoint-2/trainer_state.json": {"checkpoint-1", "checkpoint-2"},
        "checkpoint-3": {"checkpoint-2", "checkpoint-3"},
        "checkpoint-3/trainer_state.json": {"checkpoint-2", "checkpoint-3"},
    }


def test_a_state_that_a_power_failure_filled_with_zeros_is_not_complete(tmp_path: Path) -> None:
    for damaged in (bytes(20), b"\xff\xfe"):
        (tmp_path / "latest").write_bytes(damaged)  # as DeepSpeed names the directory of its shares
        assert not is_complete(tmp_path, 2, scaled=False)
