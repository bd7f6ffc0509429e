"""How often the routers of a mixture of experts choose each expert, and keeping the most used.

Experts of a layer are taken one by one for each token, so an expert that is hardly ever chosen can go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from checkpoints.nf4_experts import fused_experts
from checkpoints.progress import progress
from checkpoints.routers import find_routers

__all__ = ["ExpertUsage", "Mixture", "find_mixtures", "keep_experts", "measure_usage"]


@dataclass(frozen=True)
class Mixture:
    """One layer's mixture of experts."""

    gate: Any
    """The router, whatever the model calls it."""
    experts: Any
    """The module that holds the fused experts."""


@dataclass(frozen=True)
class ExpertUsage:
    """What the routers did with a calibration set; the keys are the names of the mixture layers."""

    choices: Mapping[str, torch.Tensor]
    """How many tokens chose each expert, int64 [experts]."""
    weight: Mapping[str, torch.Tensor]
    """The sum of the weights they gave it, float64 [experts]."""
    tokens: int

    def most_used(self, count: int) -> dict[str, list[int]]:
        """Return each layer's ``count`` most chosen experts, ascending; ties go by weight, then place."""
        kept = {}
        for name, choices in self.choices.items():
            weight = self.weight[name]
            order = sorted(range(len(choices)), key=lambda e: (-int(choices[e]), -float(weight[e]), e))
            kept[name] = sorted(order[:count])
        return kept

    def share(self, kept: Mapping[str, Sequence[int]]) -> float:
        """Return the share of all choices, over all layers, that fell on the experts ``kept``."""
        chosen = sum(int(choices[list(kept[name])].sum()) for name, choices in self.choices.items())
        return chosen / max(1, sum(int(choices.sum()) for choices in self.choices.values()))


def find_mixtures(model: nn.Module) -> dict[str, Mixture]:
    """Return the layers that have a router and, beside it, the fused experts that it chooses from, by name.

    Routers are known by their type, experts by their form; see ``find_routers`` and ``fused_experts``.
    """
    experts = {name.rpartition(".")[0]: module for name, module in fused_experts(model).items()}
    routers = {router.name.rpartition(".")[0]: router for router in find_routers(model)}
    return {
        name: Mixture(router.modules[0], experts[name])
        for name, router in routers.items()
        if len(getattr(experts.get(name), "gate_up_proj", ())) == router.experts
    }


@torch.inference_mode()
def measure_usage(model: Any, batches: Sequence[torch.Tensor]) -> ExpertUsage:
    """Run ``batches`` (rows of token ids, int64 [T]) and count what the routers choose."""
    with _counting(find_mixtures(model)) as usage, progress() as bar:
        task = bar.add_task("expert usage", total=len(batches), note="")
        for ids in batches:
            model(input_ids=ids[None].to(model.device), use_cache=False)
            bar.advance(task)
    return ExpertUsage(*usage, tokens=sum(len(ids) for ids in batches))


def keep_experts(model: Any, kept: Mapping[str, Sequence[int]]) -> None:
    """Drop all other experts, in place: their weights and their rows of the gates.

    Args:
        model: a model whose layers route by softmax over all experts.
        kept: for each mixture layer, which experts stay; as many in each.
    """
    for name, mixture in find_mixtures(model).items():
        places = ((mixture.gate, "weight"), (mixture.experts, "gate_up_proj"), (mixture.experts, "down_proj"))
        for owner, attribute in places:
            whole = getattr(owner, attribute)
            index = torch.tensor(list(kept[name]), device=whole.device)
            setattr(owner, attribute, nn.Parameter(whole.detach()[index], requires_grad=whole.requires_grad))
        mixture.gate.num_experts = mixture.experts.num_experts = len(kept[name])
    count = len(next(iter(kept.values())))
    model.config.num_experts = count
    if hasattr(model, "num_experts"):  # what some models' balance loss reads
        model.num_experts = count


@contextmanager
def _counting(
    mixtures: Mapping[str, Mixture],
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """Count choices and sum weights of each layer while the block runs."""
    choices: dict[str, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    hooks = []
    for name, mixture in mixtures.items():
        count = mixture.experts.gate_up_proj.shape[0]
        choices[name] = torch.zeros(count, dtype=torch.int64)
        weights[name] = torch.zeros(count, dtype=torch.float64)

        def count_choices(_: nn.Module, __: Any, output: tuple[torch.Tensor, ...], name: str = name) -> None:
            _logits, weight, chosen = output
            chosen = chosen.reshape(-1).cpu()
            choices[name] += torch.bincount(chosen, minlength=len(choices[name]))
            weights[name].index_add_(0, chosen, weight.reshape(-1).double().cpu())

        hooks.append(mixture.gate.register_forward_hook(count_choices))
    try:
        yield choices, weights
    finally:
        for hook in hooks:
            hook.remove()
