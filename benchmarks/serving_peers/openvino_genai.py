"""OpenVINO GenAI's ``ContinuousBatchingPipeline``, bare: its own scheduler, no engine contract, no server.

The model files and the plugin's settings are those of ``trimaran export --engine openvino``, since
optimum-intel does not follow transformers 5; what is measured here is the runtime.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.serving_peers.peer import Peer
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["OpenVinoGenAI"]


_UNUSED_ID = 1 << 30  # the pipeline asks for an end token even where it is to be ignored


class OpenVinoGenAI(Peer):
    """The pipeline's own loop: ``add_request``, ``step``, ``read``."""

    name = "openvino-genai"
    module = "benchmarks.serving_peers.openvino_genai"
    pins = ("openvino==2026.4.1", "openvino-genai==2026.4.1.0")
    note = "in process; its own loop"

    def prepare(self) -> None:
        """Install it, and export the checkpoint to its format."""
        from benchmarks.exported import export_version
        from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig
        from serving.engine.openvino.properties import compile_properties

        super().prepare()
        version = export_version(self.setting, "openvino", self.precision)
        found = sorted(version.rglob("openvino_model.xml"))
        if not found:
            raise PeerFailure(f"{version} holds no openvino_model.xml")
        self._model = found[0].parent
        self._properties = compile_properties(EngineConfig.read(version / ENGINE_CONFIG_NAME))

    def options(self) -> Mapping[str, Any]:
        """Model, precisions, and the size of the KV pool."""
        return {
            "model": str(self._model),
            "tokens": self.setting.slots * self.setting.max_context,
            "slots": self.setting.slots,
            "unused_id": _UNUSED_ID,
            "properties": self._properties,
        }

    def flags(self) -> Mapping[str, Any]:
        """See ``Peer.flags``."""
        return {key: value for key, value in self.options().items() if key != "model"}


def load(options: Mapping[str, Any]) -> Measure:
    """Load the pipeline; see ``worker.serve``."""
    import numpy as np
    import openvino_genai as genai
    from openvino import Tensor

    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = options["slots"]
    scheduler.num_kv_blocks = options["tokens"] // 32  # blocks of 32 tokens on CPUs
    scheduler.max_num_batched_tokens = 512
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    pipeline = genai.ContinuousBatchingPipeline(options["model"], scheduler, "CPU", options["properties"])
    serial = iter(range(1 << 40))

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        left = iter(items)
        running: list[tuple[Item, Trace, Any]] = []
        traces: list[Trace] = []

        def send_next() -> None:
            item = next(left, None)
            if item is None:
                return
            settings = genai.GenerationConfig()
            settings.max_new_tokens = item.max_tokens
            settings.ignore_eos = True
            settings.eos_token_id = options["unused_id"]
            settings.stop_token_ids = {options["unused_id"]}
            settings.do_sample = False
            trace = Trace(item.index, time.perf_counter())
            traces.append(trace)
            ids = Tensor(np.array([item.prompt_ids], dtype=np.int64))
            running.append((item, trace, pipeline.add_request(next(serial), ids, settings)))

        for _ in range(concurrency):
            send_next()
        while running:
            pipeline.step()
            for entry in list(running):
                item, trace, handle = entry
                while handle.can_read():
                    for output in handle.read().values():
                        trace.add(time.perf_counter(), list(output.generated_ids))
                if len(trace.token_ids) >= item.max_tokens:
                    running.remove(entry)
                    send_next()
                elif handle.get_status() not in (genai.GenerationStatus.RUNNING,):
                    raise RuntimeError(f"request {item.index} ended as {handle.get_status()}")
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
