"""The equality rule for greedy tokens (DESIGN: "Equality, in numbers").

Two exact fp32 computations may differ in the last bits, so tokens must be equal wherever the
reference's two best logits are more than ``GAP`` apart. Once a token differs at a closer call the
texts are different texts, so the comparison of that prompt ends there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

GAP = 1e-3
MAX_SHARE_OF_CLOSE_CALLS = 0.01


@dataclass(frozen=True)
class Reference:
    """Greedy tokens of one prompt and how clear each choice was."""

    token_ids: list[int]
    gaps: list[float]
    """Difference of the two best logits at each position."""


@torch.inference_mode()
def generate_greedily(
    model: PreTrainedModel, prompt_ids: list[int], max_tokens: int, stop_ids: list[int]
) -> Reference:
    """Return what Hugging Face's ``generate`` gives for one prompt alone."""
    output = model.generate(
        torch.tensor([prompt_ids], device=model.device),
        attention_mask=torch.ones((1, len(prompt_ids)), dtype=torch.long, device=model.device),
        max_new_tokens=max_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=stop_ids or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = [step[0].float().topk(2).values for step in output.logits]
    return Reference(
        output.sequences[0, len(prompt_ids) :].tolist(), [float(two[0] - two[1]) for two in best]
    )


def assert_equal_tokens(references: list[Reference], found: list[list[int]]) -> None:
    """Hold ``found`` against the references by the rule; print how many calls were close."""
    compared = close = 0
    for index, (reference, tokens) in enumerate(zip(references, found, strict=True)):
        for position, (expected, gap) in enumerate(zip(reference.token_ids, reference.gaps, strict=True)):
            compared += 1
            got = tokens[position] if position < len(tokens) else None
            if gap <= GAP:
                close += 1
                if got != expected:
                    break
            assert got == expected, (
                f"prompt {index}, position {position}: {got} instead of {expected} at a gap of {gap:.4f}"
            )
        else:
            assert len(tokens) == len(reference.token_ids), f"prompt {index}: {tokens} is longer"
    print(f"{compared} tokens compared, {close} close calls")
    assert compared > 0
    assert close <= max(1, MAX_SHARE_OF_CLOSE_CALLS * compared), f"{close} of {compared} are close calls"
