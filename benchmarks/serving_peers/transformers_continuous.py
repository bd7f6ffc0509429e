"""transformers' own continuous batching: ``init_continuous_batching``, paged KV cache, SDPA attention."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.serving_peers.transformers_static import TransformersStatic
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["TransformersContinuous"]

_BLOCK = 32


class TransformersContinuous(TransformersStatic):
    """The continuous batching manager of transformers, in process."""

    name = "transformers-continuous"
    module = "benchmarks.serving_peers.transformers_continuous"
    note = "paged attention through SDPA; block sharing off"

    def options(self) -> Mapping[str, Any]:
        """As the static peer's, and the size of the KV pool."""
        pool = self.setting.slots * self.setting.max_context
        return {**super().options(), "blocks": pool // _BLOCK, "slots": self.setting.slots}

    def flags(self) -> Mapping[str, Any]:
        """See ``Peer.flags``."""
        return {**super().flags(), "page_size": _BLOCK, "num_blocks": self.options()["blocks"]}


def load(options: Mapping[str, Any]) -> Measure:
    """Load the model and start its manager; see ``worker.serve``."""
    import torch
    from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

    torch.set_num_threads(options["threads"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options["precision"]]
    model = AutoModelForCausalLM.from_pretrained(
        options["checkpoint"], dtype=dtype, attn_implementation="sdpa"
    ).eval()
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=_BLOCK,
            num_blocks=options["blocks"],
            max_batch_tokens=512,
            max_requests_per_batch=options["slots"],
            allow_block_sharing=False,
        ),
    )
    manager.start()

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        left = iter(items)
        running: dict[str, Trace] = {}
        traces: list[Trace] = []

        def send_next() -> None:
            item = next(left, None)
            if item is None:
                return
            trace = Trace(item.index, time.perf_counter())
            name = f"{item.index}-{trace.start}"
            running[name] = trace
            traces.append(trace)
            manager.add_request(
                item.prompt_ids,
                request_id=name,
                max_new_tokens=item.max_tokens,
                streaming=True,
                eos_token_id=-1,
            )

        for _ in range(concurrency):
            send_next()
        while running:
            output = manager.get_result(timeout=60)
            if output is None:
                raise RuntimeError("no token within 60 s")
            if output.error:
                raise RuntimeError(output.error)
            trace = running[output.request_id]
            # Each output holds all tokens so far.
            trace.add(time.perf_counter(), output.generated_tokens[len(trace.token_ids) :])
            if output.is_finished():
                del running[output.request_id]
                send_next()
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
