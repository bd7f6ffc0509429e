"""Which requests the openvino engine takes; needs no OpenVINO."""

from __future__ import annotations

from checkpoints.errors import RequestError
from serving.engine.contract import Capacity
from serving.engine.request import GenerationRequest

__all__ = ["check_request"]

_PENALTY_LIMIT = 2.0
"""GenAI's own."""


def check_request(request: GenerationRequest, capacity: Capacity, vocab_size: int) -> None:
    """Check that the engine can do what ``request`` asks.

    Raises:
        RequestError: the prompt does not fit the context or the KV cache, holds an id that is no token, or
            the sampling asks for what GenAI does not have; names the input and the accepted range.
    """
    longest = len(request.prompt_ids) + request.completion_limit(capacity.max_context)
    if longest > capacity.kv_tokens:
        raise RequestError(
            f"the request takes {longest} tokens and the KV cache holds kv_tokens={capacity.kv_tokens}; "
            "ask for less, or export with more kv_tokens"
        )
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(request.sampling, name)
        if abs(value) > _PENALTY_LIMIT:
            raise RequestError(
                f"{name} is {value}; the openvino engine accepts {-_PENALTY_LIMIT} to {_PENALTY_LIMIT} "
                "(the torch engine more)"
            )
    unknown = next((token for token in request.prompt_ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise RequestError(f"the prompt holds {unknown}; accepted: token ids 0 to {vocab_size - 1}")
