"""The methods' results as a page: measured, computed at 7B, and what to make of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["render_methods"]

# What a widely read guide says of a 7B model: memory and speed relative to full fine-tuning.
_CLAIMED = {
    "full": ("100%", "100%"),
    "lora": ("10%", "95%"),
    "qlora": ("15%", "85%"),
    "bottleneck": ("20%", "90%"),
}


def render_methods(results: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    methods = results["methods"]
    full = methods.get("full")
    machine = results["machine"]
    lines = [
        "# Fine-tuning methods, measured",
        "",
        f"SmolLM2-135M-Instruct, {results['steps']} steps of {results['batch_size']} rows of GSM8K (at most "
        f"512 tokens), {machine['cores']} cores of {machine['cpu']}. Made by `python -m benchmarks.methods`; "
        "every method in a process of its own.",
        "",
        "| method | peak memory | of full | without libraries, of full | tokens/s | of full | trained "
        "| held-out loss |",
        "|---|---|---|---|---|---|---|---|",
        f"| before training | | | | | | | {results['base_loss']:.3f} |",
    ]
    for name, facts in methods.items():
        net = facts["peak_bytes"] - facts["libraries_bytes"]
        shares = ["-", "-", "-"]
        if full is not None:
            full_net = full["peak_bytes"] - full["libraries_bytes"]
            shares = [
                f"{100 * facts['peak_bytes'] / full['peak_bytes']:.0f}%",
                f"{100 * net / full_net:.0f}%",
                f"{100 * facts['tokens_per_second'] / full['tokens_per_second']:.0f}%",
            ]
        lines.append(
            f"| {name} | {facts['peak_bytes'] / 1e6:,.0f} MB | {shares[0]} | {shares[1]} "
            f"| {facts['tokens_per_second']:.0f} | {shares[2]} | {100 * facts['trainable_share']:.2f}% "
            f"| {facts['eval_loss']:.3f} |"
        )
    note = results.get("note")
    lines.append("| any of them on a GPU | not measured | | | not measured | | | |")
    lines += ["", note] if note else []
    return "\n".join([*lines, "", *_estimated(results["estimated"]), "", *_compare(methods), ""])


def _estimated(estimated: Mapping[str, Any]) -> list[str]:
    """Return the table of what the methods take at 7B."""
    methods = estimated["methods"]
    lines = [
        f"{estimated['model']}, one row of {estimated['max_length']:,} tokens in bf16 with gradient "
        "checkpointing: estimated as `trimaran train --dry-run` does, not measured.",
        "",
        "| method | weights | gradients and optimizer | activations | sum | of full | trained |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, facts in methods.items():
        sizes = [facts[f"{part}_bytes"] for part in ("weights", "states", "activations", "total")]
        share = f"{100 * sizes[-1] / methods['full']['total_bytes']:.0f}%" if "full" in methods else "-"
        lines.append(
            f"| {name} | {' | '.join(f'{size / 1e9:.1f} GB' for size in sizes)} | {share} "
            f"| {100 * facts['trainable_share']:.2f}% |"
        )
    return lines


def _compare(methods: Mapping[str, Any]) -> list[str]:
    """Say why the figures are not those that are often quoted."""
    quoted = "; ".join(
        f"{name} {memory} of the memory and {speed} of the speed"
        for name, (memory, speed) in _CLAIMED.items()
        if name in methods
    )
    return [
        f"Often quoted: {quoted}; and 0.7% trained for r=16 on q and v. Why it is otherwise here:",
        "",
        "- **Memory.** Those figures are of weights, gradients and optimizer states of a model of billions "
        "of parameters, and the second table has their order; but QLoRA is below LoRA there: its packed "
        "weights are about a quarter, with embedding and head half of the bf16 base. A small model's memory "
        "is mostly activations, which every method has, and QLoRA's are larger than LoRA's: its norms, its "
        "embedding and what goes from layer to layer are in fp32, which takes more than NF4 saves on 135 M "
        "weights.",
        "- **Speed.** No method saves the forward pass, and adapters save the products that weight "
        "gradients need: a third of all. Full fine-tuning also casts each fp32 weight to bf16 and steps "
        "through all of them, which weighs most where a step has few tokens. What adapters cost is "
        "their own small products, copies and, on NF4, unpacking weights at each use.",
        "- **Trained share.** It falls with the model's size: r=16 on q and v is 0.7% of this model's "
        "parameters, but 0.11% of the 7B's, and 0.5% there on all linear layers.",
    ]
