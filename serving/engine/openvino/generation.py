"""A request in the words of OpenVINO GenAI; ``requests.py`` has refused what it has no words for.

As in the torch engine: repetition penalty over prompt and completion, presence and frequency penalties
over the completion; temperature, then top-k, then top-p over what top-k kept, then min-p; stop ids held
back before ``min_tokens``; log-probabilities of the model itself, before temperature and penalties; a
random generator per request, so that neighbours do not change its choices. Otherwise: penalties reach
from -2 to 2, a seed is folded to 32 bits, and it draws other numbers than in the torch engine.
"""

from __future__ import annotations

import random
from typing import Any

import openvino_genai

from serving.engine.request import GenerationRequest

__all__ = ["generation_config"]

_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: multiplying by it spreads every bit of a seed (Knuth, TAOCP 6.4)."""


def generation_config(request: GenerationRequest, limit: int, stop_ids: list[int], unused_id: int) -> Any:
    """Return GenAI's config for a checked request.

    Args:
        request: what is asked.
        limit: new tokens at most.
        stop_ids: ids that end generation.
        unused_id: an id the model never gives, for "no end of sequence".
    """
    sampling = request.sampling
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = limit
    config.ignore_eos = sampling.ignore_eos or not stop_ids
    config.eos_token_id = stop_ids[0] if stop_ids else unused_id
    config.stop_token_ids = set(stop_ids) or {unused_id}
    # Without stop ids there is nothing to hold back, and ``unused_id`` is no row of the logits.
    config.min_new_tokens = min(sampling.min_tokens, limit) if stop_ids else 0
    config.logprobs = 1 if request.return_log_probs else 0
    config.repetition_penalty = sampling.repetition_penalty
    config.presence_penalty = sampling.presence_penalty
    config.frequency_penalty = sampling.frequency_penalty
    # min_p 1 keeps what is as likely as the likeliest token: a greedy choice.
    if sampling.temperature > 0 and sampling.min_p < 1:
        config.do_sample = True
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        config.min_p = sampling.min_p
        if sampling.top_k > 0:
            config.top_k = sampling.top_k
        config.rng_seed = _fold(random.getrandbits(32) if sampling.seed is None else sampling.seed)
    return config


def _fold(seed: int) -> int:
    """Bring 64 bits to the 32 that GenAI's generator takes; seeds below 2^32 stay as they are."""
    return seed if seed < 1 << 32 else (seed * _GOLDEN % (1 << 64)) >> 32
