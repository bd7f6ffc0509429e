"""Greedy tokens of Hugging Face's ``generate``, and the rule by which another engine's are held against them.

Two exact computations may differ in the last bits, so tokens must be equal wherever the reference's two
best logits are further apart than a tolerance. Once a token differs at a closer call the two texts are
different texts, and the comparison of that prompt ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Comparison", "Reference", "compare_tokens", "generate_greedily"]


@dataclass(frozen=True)
class Reference:
    """Greedy tokens of one prompt and how clear each choice was."""

    token_ids: list[int]
    gaps: list[float]
    """Difference of the two best logits at each position."""


@dataclass(frozen=True)
class Comparison:
    """What one prompt's comparison found."""

    compared: int
    """Positions looked at."""
    close_calls: int
    """Those where the reference's two best logits were within the tolerance."""
    parted: bool
    """Whether the texts part at a close call."""
    difference: str | None
    """The first difference that is none of these, in words."""


@torch.inference_mode()
def generate_greedily(
    model: PreTrainedModel, prompt_ids: Sequence[int], max_tokens: int, stop_ids: Sequence[int]
) -> Reference:
    """Return what Hugging Face's ``generate`` gives for one prompt alone.

    Args:
        model: a causal language model in evaluation mode.
        prompt_ids: token ids of the prompt.
        max_tokens: most new tokens.
        stop_ids: tokens that end the text; none for exactly ``max_tokens``.
    """
    output = model.generate(
        torch.tensor([list(prompt_ids)], device=model.device),
        attention_mask=torch.ones((1, len(prompt_ids)), dtype=torch.long, device=model.device),
        max_new_tokens=max_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = [step[0].float().topk(2).values for step in output.logits]
    return Reference(
        output.sequences[0, len(prompt_ids) :].tolist(), [float(two[0] - two[1]) for two in best]
    )


def compare_tokens(reference: Reference, tokens: Sequence[int], tolerance: float) -> Comparison:
    """Hold ``tokens`` against the reference's.

    Args:
        reference: see ``generate_greedily``.
        tokens: what the other engine chose.
        tolerance: logits; the rounding of the less exact of the two computations.
    """
    close = 0
    for position, (expected, gap) in enumerate(zip(reference.token_ids, reference.gaps, strict=True)):
        got = tokens[position] if position < len(tokens) else None
        close += gap <= tolerance
        if got == expected:
            continue
        if gap <= tolerance:
            return Comparison(position + 1, close, parted=True, difference=None)
        difference = f"position {position}: {got} instead of {expected} at a gap of {gap:.4f}"
        return Comparison(position + 1, close, parted=False, difference=difference)
    compared = len(reference.token_ids)
    more = f"{list(tokens[compared:])} after the end" if len(tokens) > compared else None
    return Comparison(compared, close, parted=False, difference=more)
