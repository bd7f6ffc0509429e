"""Triton's model config as the endpoint tells it (JSON), in the form of ``config.pbtxt``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["batching_text", "pbtxt"]

# Enumerations are written without quotes. In JSON they are strings like any other.
_ENUMERATION = re.compile(r"(TYPE|KIND|FORMAT|PRIORITY|MODEL_PRIORITY)_[A-Z0-9_]+|REJECT|DELAY")
_DEFAULTS: tuple[object, ...] = ("", False, 0, "0", None, [], {}, "FORMAT_NONE")


def pbtxt(config: Mapping[str, Any]) -> str:
    """Return the text; what has its default value is left out, as ``config.pbtxt`` files leave it out."""
    return "\n".join(_lines(config, ""))


def batching_text(config: Mapping[str, Any]) -> str:
    """Return how requests are batched, in a few words."""
    most = config.get("max_batch_size") or 0
    dynamic = config.get("dynamic_batching")
    if dynamic is None or not most:
        return "none by Triton"
    delay_us = int(dynamic.get("max_queue_delay_microseconds") or 0)
    policy = dynamic.get("default_queue_policy") or {}
    queue = policy.get("max_queue_size") or 0
    preferred = dynamic.get("preferred_batch_size") or []
    return (
        f"dynamic, at most {most} requests, delay {delay_us / 1000:g} ms"
        + (f", preferred {', '.join(map(str, preferred))}" if preferred else "")
        + (f", queue of {queue}" if queue else "")
    )


def _lines(message: Mapping[str, Any], indent: str) -> list[str]:
    found: list[str] = []
    for name, value in message.items():
        if value in _DEFAULTS and not isinstance(value, dict):
            continue
        # An empty message says something too, such as `dynamic_batching { }`.
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                inner = _lines(item, indent + "  ")
                found += [f"{indent}{name} {{", *inner, f"{indent}}}"]
            else:
                found.append(f"{indent}{name}: {_scalar(item)}")
    return found


def _scalar(value: object) -> str:
    if isinstance(value, str) and (_ENUMERATION.fullmatch(value) or re.fullmatch(r"-?\d+", value)):
        return value
    return json.dumps(value, ensure_ascii=False)
