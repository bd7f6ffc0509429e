"""A long prompt arrives among running streams: how much longer do their readers wait for a token?

Sixteen users stream 192 tokens each. A seventeenth ends a short answer while they run and then sends a
prompt of 2,000 tokens. Chunked prefill should keep the others going: their 99th percentile gap is held
against their median.

  python -m benchmarks.long_prompt                                   the torch engine, in process
  python -m benchmarks.long_prompt --engine openvino --weights int8 --through triton
  python -m benchmarks.long_prompt --prefill-chunk 128               smaller pieces, shorter gaps
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.failures import PeerFailure
from benchmarks.preparation import default_precision, make_setting, tell
from benchmarks.prompts import prompt_texts
from benchmarks.serving_peers.inprocess import InProcess
from benchmarks.serving_peers.triton import TritonGrpc
from benchmarks.setting import Setting
from benchmarks.stalls import stalls_of
from benchmarks.waves import equal_items
from checkpoints.errors import TrimaranError

__all__ = ["main"]

_STREAMS, _PROMPT, _OUTPUT = 16, 32, 192
_OPENER_OUTPUT, _LONG_OUTPUT = 48, 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    try:
        with make_setting(options.checkpoint, "auto", threads=options.threads) as setting:
            results = _run(options, setting)
    except (TrimaranError, PeerFailure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"long-prompt-{options.through}-{options.engine}-{options.weights}.json"
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    tell(f"written: {target}")
    print(json.dumps(results))
    return 0


def _run(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    texts = prompt_texts(setting.checkpoint, setting.cache / "data")
    streams = equal_items(texts, _STREAMS, _PROMPT, _OUTPUT)
    opener = replace(equal_items(texts, 1, _PROMPT, _OPENER_OUTPUT)[0], index=_STREAMS)
    long = replace(equal_items(texts, 1, options.tokens, _LONG_OUTPUT)[0], index=_STREAMS + 1)

    limits = replace(setting, slots=_STREAMS + 1, max_context=options.tokens + 64)
    kind = TritonGrpc if options.through == "triton" else InProcess
    peer = kind(limits, options.weights, options.engine, prefill_chunk=options.prefill_chunk)
    rounds = []
    try:
        peer.prepare()
        peer.start()
        for number in range(1, options.rounds + 1):
            # The seventeenth user is the first to end, so the last request is theirs.
            traces = {t.index: t for t in peer.measure([*streams, opener, long], _STREAMS + 1)}
            found = stalls_of([traces[item.index] for item in streams], traces[long.index])
            rounds.append(found)
            tell(f"round {number}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    finally:
        peer.stop()
    middle = sorted(rounds, key=lambda one: one["p99_over_median"])[len(rounds) // 2]
    return {
        "peer": peer.key,
        "prompt_tokens": options.tokens,
        "prefill_chunk": options.prefill_chunk,
        "streams": _STREAMS,
        **{name: round(value, 3) for name, value in middle.items()},
        "rounds": len(rounds),
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_prompt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=("torch", "openvino", "onnx"), default="torch", help="what computes")
    add("--weights", choices=("fp32", "bf16", "fp16", "int8", "int4"), default=default_precision())
    add("--through", choices=("inprocess", "triton"), default="inprocess", help="Triton: over gRPC")
    add("--tokens", type=int, default=2000, metavar="N", help="tokens of the long prompt (default 2000)")
    add("--prefill-chunk", type=int, default=None, metavar="N", help="prompt tokens per step (engine's own)")
    add("--rounds", type=int, default=3, metavar="N", help="how often; the middle one is told (default 3)")
    add("--threads", type=int, help="math threads of the engine (default: the cores)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
