"""Files and directories that appear whole or not at all.

A save goes to a hidden sibling on the same file system and is renamed when it is complete, so
a kill or a full disk leaves either the old state or the new one. What a kill left behind
(``.NAME.tmp-PID``, ``.NAME.old-PID``) is cleared up by the next save to the same place.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints.errors import CheckpointError

__all__ = ["atomic_directory", "sync_file", "sync_tree", "write_text_atomically"]

# I/O error, file too large, no space left, quota exceeded; and how torch's zip writer says so.
_WRITE_FAILURE = re.compile(
    r"os error (5|27|28|122)\b|No space left|iostream error|inline_container|PytorchStreamWriter"
)


@contextmanager
def atomic_directory(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``target``; rename it to ``target`` when the block succeeds.

    Args:
        target: the directory to create. Its parents are made.
        replace: whether an existing ``target`` may be replaced.

    Raises:
        CheckpointError: ``target`` exists and ``replace`` is false, its place cannot be written to, or
            the disk is full.
    """
    target = target.absolute()
    _recover_replaced(target)
    if target.exists() and not replace:
        raise CheckpointError(
            f"{target} exists already; choose another output or remove it (--overwrite replaces it)"
        )
    temporary = _temporary_sibling(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        temporary.mkdir()
    except OSError as error:
        raise CheckpointError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    try:
        yield temporary
        sync_tree(temporary)
        if target.exists():
            retired = target.with_name(f".{target.name}.old-{os.getpid()}")
            os.rename(target, retired)
            os.rename(temporary, target)
            shutil.rmtree(retired)
        else:
            os.rename(temporary, target)
        _sync(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if _is_write_failure(error):
            raise CheckpointError(f"could not write {target}: {error}; nothing was left there") from error
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


def _is_write_failure(error: BaseException) -> bool:
    """Whether the disk failed. safetensors and torch report that in exceptions that are no OSError."""
    return isinstance(error, OSError) or (
        isinstance(error, Exception) and _WRITE_FAILURE.search(str(error)) is not None
    )


def _recover_replaced(target: Path) -> None:
    """Finish what was killed between the two renames of a replacement: put the old state back."""
    for retired in target.parent.glob(f".{target.name}.old-*"):
        if _is_abandoned(retired):
            if target.exists():
                shutil.rmtree(retired, ignore_errors=True)
            else:
                os.rename(retired, target)


def _temporary_sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp-{os.getpid()}")


def _remove_leftovers(target: Path) -> None:
    """Remove what a killed process left; a sibling whose process still runs is in use."""
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_abandoned(sibling: Path) -> bool:
    """Whether the process that made ``.NAME.tmp-PID`` is gone (or is this one, which has moved on)."""
    pid = sibling.name.rpartition("-")[2]
    return pid.isdigit() and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists())


def sync_tree(directory: Path) -> None:
    """Have the disk hold all that is in ``directory``: until then a power failure may leave zeros there."""
    for path in directory.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(directory)


def sync_file(path: Path) -> None:
    """Have the disk hold a file that was just made, and that its directory has it."""
    _sync(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
