"""The results of ``benchmarks.training`` as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["render_training"]


def render_training(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    machine = results["machine"]
    peers = sorted(results["peers"].items(), key=lambda one: one[1]["tokens_per_second"])
    lines = [
        "# Fine-tuning, side by side",
        "",
        f"Made by `python -m benchmarks.training` on {machine['cpu']}, {machine['cores']} cores "
        f"({', '.join(machine['cpu_flags'])}), {results['threads']} threads. SmolLM2-135M-Instruct in "
        f"bf16, LoRA of rank 16 on all linear layers, {results['rows']} rows of GSM8K with "
        f"{results['tokens']} tokens, two epochs of which the second counts; medians of "
        f"{results['rounds']} rounds. The floor by arithmetic is "
        f"{results['floor_tokens_per_second']:.0f} tokens/s.",
        "",
        "| trainer | tokens/s | peak RSS, GB | steps | loss, first epoch | second epoch |",
        "|---|---|---|---|---|---|",
        *(
            f"| {_name(name)} | {facts['tokens_per_second']:.0f} | {facts['peak_rss'] / 1e9:.2f} | "
            f"{facts['steps']} | {facts['epoch_losses'][0]:.3f} | {facts['epoch_losses'][1]:.3f} |"
            for name, facts in peers
        ),
        "",
        "Packed: sequences of 512 tokens, three a step; padded: eight rows a step. Ours are in bold. "
        + ", ".join(f"{name} {number}" for name, number in results["versions"].items())
        + ".",
        "",
    ]
    if "curve" in results:
        lines += _curve(results["curve"])
    return "\n".join(lines)


def _curve(curve: Mapping[str, Any]) -> list[str]:
    steps = range(1, curve["steps"] + 1)
    rows = [
        f"| {_name(name)} | {' | '.join(f'{loss:.4f}' for loss in losses)} |"
        for name, losses in curve["losses"].items()
    ]
    return [
        "## The same loss",
        "",
        f"Each trainer from the same adapter, a step of all {curve['rows']} rows, learning rate "
        f"{curve['learning_rate']:g}, on {curve['cpu']}. The losses of a step are at most "
        f"{curve['largest_difference']:.2%} apart; {curve['tolerance']:.0%} is allowed, for bf16.",
        "",
        f"| loss of step | {' | '.join(map(str, steps))} |",
        f"|---|{'---|' * len(steps)}",
        *rows,
        "",
    ]


def _name(name: str) -> str:
    return f"**{name}**" if name.startswith("ours") else name
