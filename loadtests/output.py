"""The output directory: it appears whole, when everything in it is written, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from loadtests.errors import OutputError

__all__ = ["RECORDS_NAME", "check_free", "default_output", "output_directory"]

RECORDS_NAME = "requests.jsonl"


def default_output(now: datetime) -> Path:
    """Return ``loadtest-results/<time>``, with a number behind it where that is taken."""
    base = Path("loadtest-results") / now.strftime("%Y%m%d-%H%M%S")
    candidate, number = base, 2
    while candidate.exists():
        candidate, number = base.with_name(f"{base.name}-{number}"), number + 1
    return candidate


def check_free(target: Path, *, overwrite: bool) -> None:
    """Check that results may be written to ``target``.

    Raises:
        OutputError: it exists and ``overwrite`` is false, or it is no directory of results.
    """
    if target.exists() and not overwrite:
        raise OutputError(f"output: {target} exists already; choose another, or replace it with --overwrite")
    if (
        target.exists()
        and not (target / "results.json").is_file()
        and (not target.is_dir() or any(target.iterdir()))
    ):
        raise OutputError(f"output: {target} holds no load test results, so --overwrite does not replace it")


@contextmanager
def output_directory(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden sibling of ``target`` and rename it to ``target`` when the block succeeds.

    Raises:
        OutputError: ``target`` exists and ``overwrite`` is false, or it cannot be written.
    """
    check_free(target, overwrite=overwrite)
    target = target.absolute()
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.rename(temporary, target)
    except OSError as error:
        raise OutputError(f"output: {target} cannot be written: {error}; nothing was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
