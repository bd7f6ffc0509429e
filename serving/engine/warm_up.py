"""The first tokens of an engine, so that the first user does not wait for lazy initialization."""

from __future__ import annotations

import logging

from serving.engine.contract import Engine
from serving.engine.request import GenerationRequest, SamplingParameters

__all__ = ["warm_up"]

logger = logging.getLogger(__name__)


def warm_up(engine: Engine) -> None:
    """Run a prompt through prefill and decode, then forget it in the counters.

    Raises:
        Exception: what the engine raised; an engine that cannot generate is not ready.
    """
    capacity = engine.capacity
    tokens = min(2, capacity.max_context - 1)
    engine.submit(GenerationRequest([0], SamplingParameters(max_tokens=tokens, ignore_eos=True)))
    while engine.has_work:
        for event in engine.step():
            if event.error is not None:
                raise event.error
    engine.counters.reset()
    logger.info("engine ready: %d slots of %d tokens", capacity.slots, capacity.max_context)
