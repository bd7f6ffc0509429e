"""Is the served text the text of the checkpoint? Greedy tokens of the endpoint against ``generate``.

In 16-bit arithmetic two exact computations may differ where the two best tokens are nearly equal,
so a difference counts only where the reference's best two logits are more than ``CLOSE_CALL`` apart;
after any difference the two texts are different texts and the comparison of that prompt ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

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


@torch.inference_mode()
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
    compared = close = different = 0
    for prompt_ids, tokens in zip(ids, served, strict=True):
        output = model.generate(
            torch.tensor([prompt_ids], device=model.device),
            attention_mask=torch.ones((1, len(prompt_ids)), dtype=torch.long, device=model.device),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=encoder.tokens.stop,
            pad_token_id=encoder.tokens.pad or 0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        expected = output.sequences[0, len(prompt_ids) :].tolist()
        for position, token in enumerate(expected):
            compared += 1
            if position < len(tokens) and tokens[position] == token:
                continue
            best = output.logits[position][0].float().topk(2).values
            if float(best[0] - best[1]) > CLOSE_CALL:
                different += 1
            else:
                close += 1
            break
    return GreedyCheck(compared, close, different)
