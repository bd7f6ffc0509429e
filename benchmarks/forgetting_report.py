"""The results of ``benchmarks.forgetting`` as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["render_forgetting"]


def render_forgetting(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    runs, machine = results["runs"], results["machine"]
    after_a, plain = runs["a"], runs["none"]
    lines = [
        "# Forgetting",
        "",
        f"Made by `python -m benchmarks.forgetting` on {machine['cpu']}, {machine['cores']} cores, "
        f"{results['precision']}. SmolLM2-135M-Instruct with LoRA (rank 16, all linear layers) learns task "
        "A, worked answers of GSM8K, then task B, solutions of HumanEval: each "
        f"{results['steps']} steps of {results['batch_size']} rows out of {results['rows']['train']}. Losses "
        f"are in nats per token of {results['rows']['held_out']} held-out rows of each task. One seed, one "
        "order of the tasks.",
        "",
        "| run | task A | forgotten | task B | learned |",
        "|---|---|---|---|---|",
        _row("base", runs["base"], None),
        _row("after A", after_a, None),
        _row("after B, without EWC", plain, after_a),
    ]
    for name, facts in runs.items():
        if facts.get("weight") is not None:
            lines.append(_row(f"after B, ewc.weight {name.removeprefix('ewc-')}", facts, after_a))
    lines += [
        _row("after B, no EWC, a quarter of the learning rate", runs["slower"], after_a),
        "",
        "Forgotten is what B added to the loss on A, learned what it took off its own. The weight is that of "
        "`ewc.weight`; the importances are of all rows that A was trained on. Rows are few, so differences "
        "of some thousandths mean nothing.",
        "",
    ]
    return "\n".join(lines)


def _row(name: str, facts: Mapping[str, Any], start: Mapping[str, Any] | None) -> str:
    forgotten = f"{facts['a'] - start['a']:+.3f}" if start else ""
    learned = f"{start['b'] - facts['b']:+.3f}" if start else ""
    return f"| {name} | {facts['a']:.3f} | {forgotten} | {facts['b']:.3f} | {learned} |"
