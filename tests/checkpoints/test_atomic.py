from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from checkpoints.atomic import atomic_directory, write_text_atomically
from checkpoints.errors import CheckpointError

SAVE = """
import sys
from pathlib import Path
from checkpoints.atomic import atomic_directory

with atomic_directory(Path(sys.argv[1]), replace=True) as directory:
    (directory / "half").write_text("half of it")
    print("writing", flush=True)
    sys.stdin.read()
"""


def start_save(target: Path) -> subprocess.Popen[str]:
    """A process that stands in the middle of a save to ``target``."""
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    # Lazily: a traceback may still hold an open file.
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with atomic_directory(target) as directory:
        (directory / "file").write_text("x")
        assert not target.exists()
    assert (target / "file").read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def interrupted_save(directory: Path) -> None:
    (directory / "file").write_text("x")
    raise KeyboardInterrupt


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "a") as directory:
        interrupted_save(directory)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_kept_unless_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(CheckpointError, match=r"exists already.*--overwrite"), atomic_directory(target):
        pass
    with pytest.raises(ValueError, match="no"), atomic_directory(target, replace=True):
        raise ValueError("no")
    assert (target / "old").exists()
    with atomic_directory(target, replace=True) as directory:
        (directory / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_killed_save_leaves_nothing_at_the_target(tmp_path: Path) -> None:
    target = tmp_path / "model"
    process = start_save(target)
    kill(process)
    assert not target.exists()
    leftover = tmp_path / f".model.tmp-{process.pid}"
    assert leftover.is_dir()
    with atomic_directory(target) as directory:
        (directory / "whole").touch()
    assert not leftover.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_killed_replacement_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    kill(start_save(target))
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_save_does_not_remove_that_of_a_running_process(tmp_path: Path) -> None:
    process = start_save(tmp_path / "model")
    with atomic_directory(tmp_path / "model"):
        pass
    assert (tmp_path / f".model.tmp-{process.pid}" / "half").exists()
    kill(process)


def test_a_kill_between_the_two_renames_is_undone_by_the_next_save(tmp_path: Path) -> None:
    target = tmp_path / "model"
    retired = tmp_path / ".model.old-4194305"  # above the largest pid
    retired.mkdir()
    (retired / "old").touch()
    with pytest.raises(ValueError, match="no"), atomic_directory(target, replace=True):
        raise ValueError("no")
    assert (target / "old").exists()
    with atomic_directory(target, replace=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def save_bytes(directory: Path, model: Any) -> None:
    (directory / "a").write_bytes(os.urandom(200_000))
    (directory / "b").write_bytes(os.urandom(200_000))


def save_safetensors(directory: Path, model: Any) -> None:
    model.save_pretrained(directory)


def save_state_dict(directory: Path, model: Any) -> None:
    import torch

    torch.save(model.state_dict(), directory / "pytorch_model.bin")


@pytest.mark.parametrize("save", [save_bytes, save_safetensors, save_state_dict])
def test_a_full_disk_leaves_nothing(
    small_disk: Path, save: Callable[[Path, Any], None], tiny_llama_dir: Path
) -> None:
    from checkpoints.loading import load_model

    model = load_model(tiny_llama_dir)  # 378 kB
    with (
        pytest.raises(CheckpointError, match=r"could not write .*model.*nothing was left there"),
        atomic_directory(small_disk / "model") as directory,
    ):
        save(directory, model)
    assert list(small_disk.iterdir()) == []


def test_text_is_replaced_in_one_step(tmp_path: Path, small_disk: Path) -> None:
    path = small_disk / "notes.json"
    write_text_atomically(path, "old")
    with pytest.raises(OSError, match="No space left"):
        write_text_atomically(path, "x" * 500_000)
    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match=r"cannot write to .*file"),
        atomic_directory(tmp_path / "file" / "model"),
    ):
        pass


QUANTIZE_ON_A_FULL_DISK = """
import resource, sys
from trimaran.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # no file may grow beyond 40 kB
sys.exit(main(["quantize", sys.argv[1], "--output", sys.argv[2], "--no-fidelity"]))
"""


def test_quantize_on_a_full_disk_is_one_line_and_leaves_nothing(tiny_llama_dir: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUANTIZE_ON_A_FULL_DISK, str(tiny_llama_dir), str(tmp_path / "nf4")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: could not write {tmp_path / 'nf4'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
