"""The near end of a measuring process (``worker.py``): starts it, hands it workloads, waits for answers."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.processes import end, start
from benchmarks.traces import Trace
from benchmarks.workload import Item

__all__ = ["Link"]

_ROOT = Path(__file__).resolve().parent.parent


class Link:
    """A running measuring process.

    Args:
        python: the interpreter of the peer's environment.
        module: its module, which calls ``worker.serve``.
        options: what its ``load`` gets.
        log: what it prints.
        environment: variables beside our own.
        timeout: seconds until it must be ready.

    Raises:
        PeerFailure: it did not load.
    """

    def __init__(
        self,
        python: Path,
        module: str,
        options: Mapping[str, Any],
        log: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> None:
        self._log = log
        self._process = start(
            [str(python), "-m", module], log, {"PYTHONPATH": str(_ROOT), **environment}, piped=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(self._process, self._lines), daemon=True).start()
        try:
            self._ask(options, timeout)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def measure(self, items: Sequence[Item], concurrency: int, timeout: float) -> list[Trace]:
        """Run one workload.

        Raises:
            PeerFailure: it failed, died or took too long.
        """
        asked = {"items": [asdict(item) for item in items], "concurrency": concurrency}
        return [Trace(**trace) for trace in self._ask(asked, timeout)["traces"]]

    def close(self) -> None:
        """End the process."""
        end(self._process)

    def _ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise PeerFailure(f"no answer within {timeout:.0f} s; log: {self._log}") from None
        except OSError:
            line = ""
        if not line:
            raise PeerFailure(f"the process ended with {self._process.wait()}; log: {self._log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailure(answer["error"])
        return answer


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.put(line)
    except ValueError:  # closed by us
        pass
    lines.put("")
