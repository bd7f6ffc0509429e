"""Copies a growing log to standard error, for ``docker logs`` and ``kubectl logs``."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import threading
from pathlib import Path
from types import TracebackType

from serving.sparse_file import free_range

__all__ = ["LogEcho"]

_LOOK_SECONDS = 0.2

_KEPT_BYTES = 1 << 20
"""What stays of the log itself, for whoever looks for the reason of a failure in it."""


class LogEcho:
    """Copies what is written to ``path`` from now on, until the block ends; nothing is lost at its end.

    What was copied long ago is freed on disk, so that a log in a small or in-memory ``/tmp`` never fills it.

    Args:
        path: the log; it may not exist yet, and may be begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._freed = 0
        # Triton may be in the middle of a character when we look.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log echo", daemon=True)

    def __enter__(self) -> LogEcho:
        with contextlib.suppress(OSError):  # the server says it better
            if self._path.is_file():
                os.truncate(self._path, 0)  # an earlier run's
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._copy()

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._copy()

    def _copy(self) -> None:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:  # begun anew
                    self._position = self._freed = 0
                    self._decoder.reset()
                file.seek(self._position)
                new = file.read()
        except OSError:
            return
        self._position += len(new)
        sys.stderr.write(self._decoder.decode(new))
        sys.stderr.flush()
        self._free_old()

    def _free_old(self) -> None:
        end = self._position - _KEPT_BYTES
        if end - self._freed >= _KEPT_BYTES:
            free_range(self._path, self._freed, end - self._freed)
            self._freed = end
