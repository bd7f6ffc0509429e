"""What an engine holds in memory, against what it must hold, and whether that stays.

  python -m benchmarks.memory
  python -m benchmarks.memory --engines openvino-int8,torch-nf4 --waves 12

Each engine serves the same workload of 32 users again and again, in process. The least it can take is
its weights, its KV cache and a runtime baseline: what the same process holds after importing the
engine's libraries and serving a model of no size. Results go to benchmarks/results/memory.json.
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
from benchmarks.machine import machine_facts
from benchmarks.preparation import default_precision, make_setting, tell
from benchmarks.processes import resident
from benchmarks.prompts import prompt_texts
from benchmarks.serving_peers.inprocess import InProcess
from benchmarks.setting import Setting
from benchmarks.tiny import tiny_checkpoint
from benchmarks.workload import make_items
from checkpoints.errors import TrimaranError
from checkpoints.manifest import manifest_sha256
from serving.engine.config import ENGINE_CONFIG_NAME, EngineConfig

__all__ = ["default_engines", "main", "model_bytes"]

_KV_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "u8": 1}
_MODEL_FILES = (".safetensors", ".bin", ".onnx", ".onnx_data", ".data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parse(arguments)
    results: dict[str, Any] = {"machine": machine_facts(), "engines": {}}
    try:
        with make_setting(options.checkpoint, "auto") as setting:
            for name in options.engines:
                results["engines"][name] = _measure(setting, *name.split("-"), waves=options.waves)
    except (TrimaranError, PeerFailure, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / "memory.json"
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    tell(f"written: {target}")
    print(json.dumps({name: facts["peak_ratio"] for name, facts in results["engines"].items()}))
    return 0


def default_engines() -> list[str]:
    """Return ENGINE-WEIGHTS of every engine, in the weights that its figures are quoted in."""
    torch = f"torch-{default_precision()}"
    return [torch, "torch-nf4", "openvino-fp16", "openvino-int8", "onnx-fp32", "onnx-int8"]


def _measure(setting: Setting, engine: str, weights: str, *, waves: int) -> dict[str, Any]:
    baseline = _baseline(setting, engine, weights)
    peer = InProcess(setting, weights, engine)
    items = make_items(prompt_texts(setting.checkpoint, setting.cache / "data"), 32)
    after = []
    try:
        peer.prepare()
        peer.start()
        for _ in range(waves):
            peer.measure(items, 32)
            after.append(resident(peer.pid))
        peak = peer.peak_rss()
    finally:
        peer.stop()
    weight_bytes, kv_bytes = model_bytes(peer.version), _kv_bytes(setting, peer.version)
    least = weight_bytes + kv_bytes + baseline
    # The first waves fill what is allocated on demand.
    settled = after[len(after) // 3 :]
    ratio = round(peak / least, 3)
    growth = round(settled[-1] / settled[0] - 1, 4)
    facts = {
        "weights_bytes": weight_bytes,
        "kv_bytes": kv_bytes,
        "baseline_bytes": baseline,
        "peak_bytes": peak,
        "peak_ratio": ratio,
        "resident_after_wave_bytes": after,
        "growth_after_warm_up": growth,
    }
    tell(
        f"{engine}-{weights}: weights {weight_bytes / 1e6:.0f} MB, KV {kv_bytes / 1e6:.0f} MB, runtime"
        f" {baseline / 1e6:.0f} MB; peak {peak / 1e6:.0f} MB, {ratio:.2f} times their sum;"
        f" growth after warm-up {100 * growth:.1f}%"
    )
    return facts


def _baseline(setting: Setting, engine: str, weights: str) -> int:
    """Resident memory of the same process with a model of no size, bytes."""
    checkpoint = tiny_checkpoint(setting)
    tiny = replace(
        setting, checkpoint=checkpoint, checkpoint_hash=manifest_sha256(checkpoint), slots=1, max_context=64
    )
    peer = InProcess(tiny, weights, engine)
    try:
        peer.prepare()
        peer.start()
        return resident(peer.pid)
    finally:
        peer.stop()


def model_bytes(version: Path) -> int:
    """Return the size of the files that hold an exported version's weights."""
    files = (version / "checkpoint").rglob("*")
    return sum(path.stat().st_size for path in files if path.name.endswith(_MODEL_FILES))


def _kv_bytes(setting: Setting, version: Path) -> int:
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(setting.checkpoint)
    config = EngineConfig.read(version / ENGINE_CONFIG_NAME)
    head = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    values = 2 * model.num_hidden_layers * model.num_key_value_heads * head
    tokens = config.kv_tokens or setting.slots * setting.max_context
    return int(values * tokens * _KV_BYTES[config.kv_dtype])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engines", type=lambda text: text.split(","), metavar="A,B", help="ENGINE-WEIGHTS, ...",
        default=default_engines())  # fmt: skip
    add("--waves", type=int, default=9, metavar="N", help="how often the workload is served (default 9)")
    add("--checkpoint", type=Path, help="another checkpoint with a manifest (default: SmolLM2-135M-Instruct)")
    add("--output", type=Path, metavar="FOLDER", default=Path(__file__).parent / "results",
        help="where the results go")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.waves < 3:
        parser.error(f"--waves is {options.waves}; accepted: at least 3")
    return options


if __name__ == "__main__":
    sys.exit(main())
