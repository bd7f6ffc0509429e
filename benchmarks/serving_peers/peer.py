"""What a peer is: something that can be installed, started, measured and stopped.

A peer's measuring process runs its own module (``python -m benchmarks.serving_peers.NAME``) in the
peer's environment. In a peer without a server that process holds the engine too.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.environments import interpreter_for
from benchmarks.link import Link
from benchmarks.processes import peak_rss
from benchmarks.setting import Setting
from benchmarks.traces import Trace
from benchmarks.workload import Item

__all__ = ["Peer"]

_WARM_UP_TOKENS = 8


class Peer(ABC):
    """One engine in one precision.

    Args:
        setting: of the run.
        precision: the end of its key, for example ``bf16`` or ``q8_0``.
    """

    name: ClassVar[str]
    """The beginning of its key."""

    module: ClassVar[str]
    """The module of its measuring process."""

    pins: ClassVar[tuple[str, ...]] = ()
    """Requirements of its environment, ``name==version``."""

    ours: ClassVar[bool] = False
    """Whether it is Trimaran's."""

    note: ClassVar[str] = ""
    """What a reader of the table should know."""

    def __init__(self, setting: Setting, precision: str) -> None:
        self.setting = setting
        self.precision = precision
        self.python = Path()
        self.start_seconds = 0.0
        self._link: Link | None = None

    @property
    def key(self) -> str:
        """Its name in tables and ratios."""
        return f"{self.name}-{self.precision}"

    @property
    def folder(self) -> Path:
        """Its folder in the cache."""
        folder = self.setting.cache / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.setting.logs / f"{self.key}.log"

    def flags(self) -> Mapping[str, Any]:
        """Settings that decide its speed, for the record."""
        return {"threads": self.setting.threads}

    def prepare(self) -> None:
        """Install and convert what it needs.

        Raises:
            PeerFailure: it cannot run here; the message is the reason.
        """
        self.python = interpreter_for(
            self.folder, self.pins, log=self.log, timeout=self.setting.build_timeout
        )

    def start(self) -> None:
        """Start it and generate a few tokens; ``start_seconds`` is what it took until it was ready.

        Raises:
            PeerFailure: it does not start.
        """
        begin = time.monotonic()
        try:
            self._start_server()
            served = time.monotonic() - begin
            self._link = Link(
                self.python, self.module, self.options(), self.log, self.environment(), self._start_timeout
            )
        except BaseException:
            self.stop()
            raise
        # Where there is a server, the measuring process is no part of its start.
        self.start_seconds = served if self._server_pid() is not None else time.monotonic() - begin
        self.measure([Item(-1 - n, [1 + n] * 16, _WARM_UP_TOKENS) for n in range(2)], 2)

    def measure(self, items: Sequence[Item], concurrency: int) -> list[Trace]:
        """Run a workload.

        Raises:
            PeerFailure: it failed.
        """
        assert self._link is not None
        tokens = sum(item.max_tokens for item in items)
        return self._link.measure(items, concurrency, timeout=120.0 + tokens)

    @property
    def pid(self) -> int:
        """Of the process that holds the engine; while it is started."""
        assert self._link is not None
        return self._server_pid() or self._link.pid

    def peak_rss(self) -> int:
        """Peak resident memory of its processes since it was started, in bytes."""
        return peak_rss(self.pid)

    def stop(self) -> None:
        """End its processes; nothing happens when there are none."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._stop_server()

    def environment(self) -> Mapping[str, str]:
        """Variables of its measuring process."""
        return {
            "OMP_NUM_THREADS": str(self.setting.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }

    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """What its measuring process is told."""

    @property
    def _start_timeout(self) -> float:
        return self.setting.start_timeout

    def _start_server(self) -> None:  # noqa: B027 - most peers have no server
        """Start the server, where there is one, and wait until it is ready."""

    def _server_pid(self) -> int | None:
        """Process id of the server, where there is one."""
        return None

    def _stop_server(self) -> None:  # noqa: B027
        """End the server, where there is one."""
