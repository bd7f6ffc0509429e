"""A workload in a few words, from the settings in ``results.json``, old runs with fewer of them included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from loadtests.workloads.settings import WorkloadSettings
from loadtests.workloads.workload import SAMPLING

__all__ = ["generation_text", "prompts_text"]


def prompts_text(config: Mapping[str, Any]) -> str:
    """Return what is asked: ``synthetic, 200 tokens; up to 3 turns, think time 2s``."""
    known = {**asdict(WorkloadSettings()), **config}
    name = known["workload"]
    if name == "prompts":
        parts = [known["prompts"] or "packaged mix"]
    elif name == "synthetic":
        parts = [f"synthetic, {known['input_tokens']} tokens"]
    else:
        parts = [f"{name}, {known['prompts']}" if known["prompts"] else name]
    if known["prefixes"]:
        share = f" before {100 * known['prefix_share']:g} %" if known["prefix_share"] < 1 else ""
        parts.append(f"{known['prefixes']} shared prefixes of {known['prefix_tokens']} tokens{share}")
    if known["turns"] > 1:
        parts.append(f"up to {known['turns']} turns")
    if known["think_time"] != "0s":
        parts.append(f"think time {known['think_time']}")
    return "; ".join(parts)


def generation_text(config: Mapping[str, Any]) -> str:
    """Return what answers are wanted: ``max_tokens 64, temperature 0``, and what else is set."""
    known = {**asdict(WorkloadSettings()), **config}
    length = f"max_tokens {known['output_tokens'] or known['max_tokens']}"
    parts = [f"{length}, forced" if known["force_output_tokens"] else length]
    parts.append(f"temperature {known['temperature']:g}")
    parts += [f"{name} {known[name]:g}" for name in SAMPLING if known[name] is not None]
    return ", ".join(parts)
