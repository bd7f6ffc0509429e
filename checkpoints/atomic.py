"""Files and directories that appear whole or not at all.

A save goes to a hidden sibling on the same file system and is renamed when it is complete, so
a kill or a full disk leaves either the old state or the new one. What a kill left behind
(``.NAME.tmp-PID``) is removed by the next save to the same place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints.errors import CheckpointError

__all__ = ["atomic_directory", "write_text_atomically"]


@contextmanager
def atomic_directory(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``target``; rename it to ``target`` when the block succeeds.

    Args:
        target: the directory to create. Its parents are made.
        replace: whether an existing ``target`` may be replaced.

    Raises:
        CheckpointError: ``target`` exists and ``replace`` is false, or the disk is full.
    """
    target = target.absolute()
    if target.exists() and not replace:
        raise CheckpointError(
            f"{target} exists already; choose another output or remove it (--overwrite replaces it)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    temporary = _temporary_sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        _sync_tree(temporary)
        if target.exists():
            retired = target.with_name(f".{target.name}.old-{os.getpid()}")
            os.rename(target, retired)
            os.rename(temporary, target)
            shutil.rmtree(retired)
        else:
            os.rename(temporary, target)
        _sync(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"could not write {target}: {error}; nothing was left there") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, replacing it in one step."""
    temporary = _temporary_sibling(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _temporary_sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp-{os.getpid()}")


def _remove_leftovers(target: Path) -> None:
    """Remove what a killed process left; a sibling whose process still runs is in use."""
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):
        pid = leftover.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists()):
            shutil.rmtree(leftover, ignore_errors=True)


def _sync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
