"""transformers' ``generate`` in static batches: the batch waits for its longest request.

All requests of a batch are sent at once, the next batch when the last one has ended. Tokens beyond a
request's own length are computed, as ``generate`` does, and not counted. It does not stream batches;
a stopping criterion notes when each token was there, which flatters it: a caller gets them at the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.serving_peers.peer import Peer
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["TransformersStatic"]


class TransformersStatic(Peer):
    """``AutoModelForCausalLM.generate``, left-padded, greedy, SDPA attention."""

    name = "transformers-static"
    module = "benchmarks.serving_peers.transformers_static"
    pins = ("torch==2.13.0", "transformers==5.23.0")
    note = "each batch waits for its longest; TTFT and ITL as if it streamed"

    def prepare(self) -> None:
        """Quantize, where it is to load NF4."""
        from benchmarks.quantized import checkpoint_in

        super().prepare()
        self._checkpoint = checkpoint_in(self.setting, self.precision)

    def options(self) -> Mapping[str, Any]:
        """Checkpoint, precision and threads."""
        return {
            "checkpoint": str(self._checkpoint),
            "precision": self.setting.precision if self.precision == "nf4" else self.precision,
            "threads": self.setting.threads,
        }

    def flags(self) -> Mapping[str, Any]:
        """See ``Peer.flags``."""
        return {"dtype": self.precision, "threads": self.setting.threads, "attention": "sdpa"}


def load(options: Mapping[str, Any]) -> Measure:
    """Load the model; see ``worker.serve``."""
    import torch
    from transformers import AutoModelForCausalLM, StoppingCriteriaList

    torch.set_num_threads(options["threads"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options["precision"]]
    model = AutoModelForCausalLM.from_pretrained(options["checkpoint"], dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # lengths are forced

    @torch.inference_mode()
    def run_batch(batch: Sequence[Item]) -> list[Trace]:
        width = max(len(item.prompt_ids) for item in batch)
        length = max(item.max_tokens for item in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(batch):
            ids[row, width - len(item.prompt_ids) :] = torch.tensor(item.prompt_ids)
            mask[row, width - len(item.prompt_ids) :] = 1
        moments: list[float] = []

        def note(input_ids: Any, scores: Any, **rest: Any) -> Any:
            moments.append(time.perf_counter())
            return torch.zeros(len(batch), dtype=torch.bool)

        start = time.perf_counter()
        output = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=length,
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=StoppingCriteriaList([note]),
        )
        traces = []
        for item, row in zip(batch, output[:, width:].tolist(), strict=True):
            trace = Trace(item.index, start)
            for moment, token in list(zip(moments, row, strict=True))[: item.max_tokens]:
                trace.add(moment, [token])
            traces.append(trace)
        return traces

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        traces: list[Trace] = []
        for first in range(0, len(items), concurrency):
            traces += run_batch(items[first : first + concurrency])
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
