"""Is the served text the text of the checkpoint? Greedy tokens of the endpoint against ``generate``.

In 16-bit arithmetic two exact computations may differ where the two best tokens are nearly equal, so a
difference counts only where the reference's best two logits are more than ``CLOSE_CALL`` apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checkpoints.greedy import compare_tokens, generate_greedily
from checkpoints.loading import load_model
from checkpoints.prompt import PromptEncoder
from serving.client import TritonClient

__all__ = ["CLOSE_CALL", "GreedyCheck", "check_greedy"]

CLOSE_CALL = 0.5
"""Logits; bf16 has 8 bits of precision, so a logit near 20 is known to about 0.1."""


@dataclass(frozen=True)
class GreedyCheck:
    """What the comparison found."""

    compared: int
    """Tokens compared."""

    close_calls: int
    """Differences at a near tie."""

    different: int
    """Differences that are none: the endpoint serves something else."""

    @property
    def passed(self) -> bool:
        """Whether the endpoint serves the checkpoint."""
        return self.compared > 0 and self.different == 0


def check_greedy(
    checkpoint: Path, grpc_url: str, model_name: str, prompts: Sequence[str], max_tokens: int
) -> GreedyCheck:
    """Ask the endpoint and ``generate`` the same and compare token by token.

    Args:
        checkpoint: what was exported.
        grpc_url: ``host:port`` of the endpoint.
        model_name: its name there.
        prompts: user messages; sent all at once.
        max_tokens: new tokens of each.
    """
    encoder = PromptEncoder.from_checkpoint(checkpoint)
    with TritonClient(grpc_url, model=model_name, timeout=300) as client:
        ids = [encoder.encode(messages=[{"role": "user", "content": text}]) for text in prompts]
        streams = [client.stream(input_ids=one, max_tokens=max_tokens) for one in ids]
        served = [[token for chunk in stream for token in chunk.output_ids] for stream in streams]
    model = load_model(checkpoint)
    references = [generate_greedily(model, one, max_tokens, encoder.tokens.stop) for one in ids]
    found = [
        compare_tokens(reference, tokens, CLOSE_CALL)
        for reference, tokens in zip(references, served, strict=True)
    ]
    return GreedyCheck(
        compared=sum(one.compared for one in found),
        close_calls=sum(one.parted for one in found),
        different=sum(one.difference is not None for one in found),
    )
