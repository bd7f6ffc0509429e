"""What one process of a model holds: weights by the files' sizes, KV cache by its shape, runtime measured."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from checkpoints.errors import DeployError
from checkpoints.manifest import Manifest
from serving.engine.config import EngineConfig

__all__ = ["CUDA_BYTES", "MARGIN", "RUNTIME_BYTES", "SERVER_BYTES", "file_bytes", "kv_bytes", "weight_bytes"]

RUNTIME_BYTES = {"torch": 1_035_000_000, "openvino": 815_000_000, "onnx": 535_000_000}
"""What an instance holds without a model, in the engine's process and, where that is its own, the one before
it; measured on CPUs with ``benchmarks/memory.py`` and ``benchmarks/serving.py``. Of torch's, 60 MB are for
compiling its kernels, in a container that cannot keep what was compiled."""

SERVER_BYTES = 150_000_000
"""Triton itself, once; measured."""

CUDA_BYTES = 3_000_000_000
"""What CUDA's libraries and context take of the machine's memory; an allowance, not measured."""

MARGIN = 1.3
"""Safety factor on the sum: prompts being computed, layouts made at loading, allocators' fragments."""

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "u8": 1}


def file_bytes(checkpoint: Path, manifest: Manifest) -> int:
    """Return the size on disk of the files that the manifest seals.

    Raises:
        DeployError: one of them is not there.
    """
    total = 0
    for name in manifest.files:
        try:
            total += (checkpoint / name).stat().st_size
        except OSError as error:
            raise DeployError(
                f"{checkpoint / name} is in the manifest, but cannot be read: {error.strerror}; "
                "export or copy the version again"
            ) from error
    return total


def weight_bytes(checkpoint: Path, manifest: Manifest, engine: EngineConfig) -> int:
    """Return what the weights take in memory: the files' size, unless loading widens them.

    Those that the torch engine rounds to int8 are loaded as they are first.
    """
    size = file_bytes(checkpoint, manifest)
    if engine.engine != "torch":
        return size  # converted at export: the files are what is loaded
    if engine.weights == "nf4":
        return size + (_half_precision_bytes(checkpoint) if engine.kv_dtype == "fp32" else 0)
    if engine.weights == "int8":
        return size
    return size * _BYTES[engine.weights] // _BYTES[manifest.dtype]


def kv_bytes(checkpoint: Path, engine: EngineConfig) -> int:
    """Return what keys and values of all slots take.

    With latent attention (DeepSeek's MLA) the torch engine keeps the latents; for the other engines this
    counts the keys and values of every head, which is the most they can take.

    Raises:
        DeployError: config.json cannot be read.
    """
    from serving.engine.torch.placement import cache_bytes

    text = _text_config(checkpoint, engine)
    tokens = engine.slots * engine.max_context
    if engine.engine == "torch":
        tokens += engine.slots  # a scratch position of each slot
        if engine.prefix_cache:
            tokens += tokens // 4
    elif engine.kv_tokens is not None:
        tokens = engine.kv_tokens
    width: Any = SimpleNamespace(itemsize=_BYTES[engine.kv_dtype])
    if engine.engine != "torch" and getattr(text, "kv_lora_rank", None):
        head = text.qk_nope_head_dim + text.qk_rope_head_dim + text.v_head_dim
        return int(text.num_hidden_layers * tokens * text.num_attention_heads * head * width.itemsize)
    return cache_bytes(text, 1, tokens, width)


def _text_config(checkpoint: Path, engine: EngineConfig) -> Any:
    # transformers' classes know the names that each architecture has for its sizes.
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            checkpoint, trust_remote_code=engine.trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise DeployError(f"{checkpoint}/config.json cannot be used: {error}; export again") from error
    return config.get_text_config()


def _half_precision_bytes(checkpoint: Path) -> int:
    """Return the bytes of all 16-bit tensors: what quantization left alone, and computing in fp32 doubles."""
    total = 0
    for path in checkpoint.rglob("*.safetensors"):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in ("BF16", "F16"):
                start, end = tensor["data_offsets"]
                total += end - start
    return total
