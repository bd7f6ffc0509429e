"""Notes what routers decide during a forward pass, and drops what is beyond an expert's capacity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints.errors import ConfigError
from checkpoints.routers import Router
from training.moe.capacity import capacity_of, within_capacity

__all__ = ["Decision", "RouterRecorder"]


@dataclass(frozen=True)
class Decision:
    """What one router decided about one batch."""

    router: Router
    logits: Tensor
    """float ``[tokens, experts]``, with its gradient."""
    indices: Tensor
    """int64 ``[tokens, k]``."""
    kept: Tensor
    """bool ``[tokens, k]``: False where the expert's capacity was used up."""
    counted: Tensor
    """bool ``[tokens]``: False for padding."""


class RouterRecorder:
    """Hooks on the routers of a model: they note decisions inside ``recording``, and only there.

    So the second forward pass that gradient checkpointing makes in the backward pass is not counted again,
    though what was dropped in the first one is dropped in it too.

    Args:
        routers: see ``find_routers``.
        capacity_factor: see ``MoeSettings.expert_capacity_factor``; nothing is dropped in evaluation.
    """

    def __init__(self, routers: Sequence[Router], capacity_factor: float | None = None) -> None:
        self._factor = capacity_factor
        self._open = False
        self._counted: Tensor | None = None
        self._decisions: list[Decision] = []
        for router in routers:
            for module in router.modules:
                module.register_forward_hook(_Hook(self, router))

    @contextmanager
    def recording(self, attention_mask: Tensor | None) -> Iterator[list[Decision]]:
        """Yield the list that decisions of forward passes in the block go to.

        Args:
            attention_mask: ``[batch, length]`` of the batch, 0 for padding and for what fills a pack up; it
                holds until the next batch. None where there is no padding.
        """
        self._counted = None if attention_mask is None else attention_mask.reshape(-1) != 0
        self._decisions, self._open = [], True
        try:
            yield self._decisions
        finally:
            self._open = False

    def decide(self, router: Router, module: nn.Module, output: Any) -> Any:
        """Take a router's output; return it with the weights of dropped assignments set to 0.

        Raises:
            ConfigError: a capacity is set, and the output is not that of transformers 5.
        """
        if not _is_routing(output, router.experts):
            if self._factor is None:
                return output
            raise ConfigError(
                f"moe.expert_capacity_factor = {self._factor}: the router {router.name} "
                f"({type(module).__name__}) does not give logits, weights and indices, so nothing can be "
                "dropped; leave the setting out"
            )
        logits, weights, indices = output
        counted = self._counted
        if counted is None or counted.numel() != indices.shape[0]:
            counted = torch.ones(indices.shape[0], dtype=torch.bool, device=indices.device)
        counted = counted.to(indices.device)
        kept = torch.ones_like(indices, dtype=torch.bool)
        if self._factor is not None and module.training:
            capacity = capacity_of(int(counted.sum()), indices.shape[1], router.experts, self._factor)
            kept = within_capacity(indices, weights, router.experts, capacity, counted)
            weights = weights * kept.to(weights.dtype)
        if self._open:
            self._decisions.append(Decision(router, logits, indices, kept, counted))
        return logits, weights, indices


class _Hook:
    def __init__(self, recorder: RouterRecorder, router: Router) -> None:
        self._recorder, self._router = recorder, router

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return self._recorder.decide(self._router, module, output)


def _is_routing(output: Any, experts: int) -> bool:
    """Whether it is (logits ``[tokens, experts]``, weights ``[tokens, k]``, indices ``[tokens, k]``)."""
    if not isinstance(output, tuple) or len(output) != 3:
        return False
    logits, weights, indices = output
    if not all(isinstance(value, Tensor) and value.ndim == 2 for value in output):
        return False
    return (
        logits.shape == (indices.shape[0], experts)
        and weights.shape == indices.shape
        and not indices.is_floating_point()
    )
