"""The equality rule for greedy tokens (DESIGN: "Equality, in numbers"), as an assertion."""

from __future__ import annotations

from checkpoints.greedy import Reference, compare_tokens, generate_greedily

__all__ = ["GAP", "Reference", "assert_equal_tokens", "generate_greedily"]

GAP = 1e-3
"""Logits; what two exact fp32 computations may differ by."""

MAX_SHARE_OF_CLOSE_CALLS = 0.01


def assert_equal_tokens(references: list[Reference], found: list[list[int]]) -> None:
    """Hold ``found`` against the references by the rule; print how many calls were close."""
    compared = close = 0
    for index, (reference, tokens) in enumerate(zip(references, found, strict=True)):
        comparison = compare_tokens(reference, tokens, GAP)
        assert comparison.difference is None, f"prompt {index}, {comparison.difference}"
        compared += comparison.compared
        close += comparison.close_calls
    print(f"{compared} tokens compared, {close} close calls")
    assert compared > 0
    assert close <= max(1, MAX_SHARE_OF_CLOSE_CALLS * compared), f"{close} of {compared} are close calls"
