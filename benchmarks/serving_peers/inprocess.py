"""Trimaran's engines without Triton: the engine loop in the measuring process itself."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving_peers.peer import Peer
from benchmarks.setting import Setting
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["InProcess"]


class InProcess(Peer):
    """An exported version, loaded by ``load_engine`` and run by ``EngineLoop``.

    Args:
        setting: of the run.
        precision: of the weights.
        engine: name of the engine.
        changes: settings of the export that differ from its defaults.
    """

    module = "benchmarks.serving_peers.inprocess"
    ours = True
    note = "no server: what the engine itself does, detokenizing included"

    def __init__(self, setting: Setting, precision: str, engine: str, **changes: Any) -> None:
        super().__init__(setting, precision)
        self.engine = engine
        self.changes = changes
        self.version = Path()

    @property
    def key(self) -> str:
        """See ``Peer.key``."""
        return f"inprocess-{self.engine}-{self.precision}"

    def prepare(self) -> None:
        """Export the checkpoint for this engine."""
        from benchmarks.exported import export_version

        self.python = Path(sys.executable)
        self.version = export_version(self.setting, self.engine, self.precision, **self.changes)

    def options(self) -> Mapping[str, Any]:
        """The exported version."""
        return {"version": str(self.version)}

    def flags(self) -> Mapping[str, Any]:
        """See ``Peer.flags``."""
        limits = {"slots": self.setting.slots, "max_context": self.setting.max_context}
        return {**limits, **self.changes, **super().flags()}


class _Sink:
    """Notes what comes for one request and says when it has ended."""

    def __init__(self, trace: Trace, ended: queue.SimpleQueue[Exception | None]) -> None:
        self._trace = trace
        self._ended = ended

    def on_delta(self, delta: Any) -> None:
        self._trace.add(time.perf_counter(), delta.token_ids)
        if delta.finish_reason:
            self._ended.put(None)

    def on_error(self, error: Exception) -> None:
        self._ended.put(error)


def load(options: Mapping[str, Any]) -> Measure:
    """Load the engine and start its loop; see ``worker.serve``."""
    from checkpoints.manifest import read_manifest
    from checkpoints.prompt import PromptEncoder
    from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
    from serving.engine.loop import EngineLoop
    from serving.engine.registry import load_engine
    from serving.engine.request import GenerationRequest, SamplingParameters

    version = Path(options["version"])
    checkpoint = version / "checkpoint"
    config = EngineConfig.read(version / ENGINE_CONFIG_NAME)
    manifest = read_manifest(checkpoint)
    tokenizer = PromptEncoder.from_checkpoint(checkpoint).tokenizer
    loop = EngineLoop(
        lambda: load_engine(checkpoint, config, manifest), tokenizer, stream_interval=config.stream_interval
    )
    loop.start()

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        left = iter(items)
        ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        traces: list[Trace] = []

        def send_next() -> bool:
            item = next(left, None)
            if item is None:
                return False
            sampling = SamplingParameters(max_tokens=item.max_tokens, ignore_eos=True)
            trace = Trace(item.index, time.perf_counter())
            traces.append(trace)
            loop.submit(GenerationRequest(item.prompt_ids, sampling), _Sink(trace, ended))
            return True

        running = sum(send_next() for _ in range(concurrency))
        while running:
            error = ended.get()
            if error is not None:
                raise error
            running += send_next() - 1
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
