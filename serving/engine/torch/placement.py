"""Which device holds which layer, where a model is larger than one GPU.

Layers are dealt out in order, so that hidden states cross from one device to the next only once;
each device keeps room for the keys and values of its own layers. What fits on no GPU stays in the
machine's memory and is moved in for each pass, which is slow and said so.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["cache_bytes", "input_device", "place_layers"]

logger = logging.getLogger(__name__)

Device = int | str
"""A GPU's number, ``cpu`` or ``disk``."""


def cache_bytes(text: Any, slots: int, max_context: int, dtype: torch.dtype) -> int:
    """Return the bytes that the keys and values of all layers take.

    Args:
        text: the Hugging Face config of the language model.
        slots: rows of the cache.
        max_context: positions of a row.
        dtype: of keys and values.
    """
    heads = text.num_attention_heads
    if getattr(text, "kv_lora_rank", None):  # DeepSeek's latent attention caches what all heads share
        numbers = text.kv_lora_rank + text.qk_rope_head_dim
    else:
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
        numbers = 2 * (getattr(text, "num_key_value_heads", None) or heads) * size
    return int(text.num_hidden_layers * slots * max_context * numbers * dtype.itemsize)


def place_layers(
    empty: PreTrainedModel,
    dtype: torch.dtype,
    kv_bytes: int,
    max_memory: dict[Device, int] | None = None,
) -> dict[str, Device]:
    """Return module name -> device, as ``from_pretrained(device_map=...)`` takes it.

    Args:
        empty: the model on the meta device.
        dtype: of the weights.
        kv_bytes: size of the KV cache, which is spread as the layers are.
        max_memory: bytes of each device; by default what is free.
    """
    # Here and not above: only a model that is spread needs accelerate.
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory, get_max_memory

    memory = dict(max_memory or get_max_memory())
    gpus = [device for device in memory if isinstance(device, int)]
    for device in gpus:
        memory[device] = max(0, memory[device] - kv_bytes // len(gpus))
    whole = empty._no_split_modules
    if max_memory is None:
        memory = get_balanced_memory(empty, memory, no_split_module_classes=whole, dtype=dtype)
    placed: dict[str, Device] = infer_auto_device_map(
        empty, memory, no_split_module_classes=whole, dtype=dtype
    )
    counts = Counter(str(device) for device in placed.values())
    logger.info("modules per device: %s", ", ".join(f"{name}: {count}" for name, count in counts.items()))
    if gpus and (counts["cpu"] or counts["disk"]):
        logger.warning(
            "%d modules fit on no GPU and are moved in for each pass", counts["cpu"] + counts["disk"]
        )
    return placed


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device on which a pass begins, also where the embeddings are moved in for each pass."""
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)
    execution = getattr(hook, "execution_device", None)
    if execution is None:
        weight: torch.Tensor = embeddings.weight
        return weight.device
    return torch.device("cuda", execution) if isinstance(execution, int) else torch.device(execution)
