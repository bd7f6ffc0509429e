"""Pulls the trained weights back to where an earlier run left them, each as hard as its loss needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from checkpoints.errors import ConfigError
from training.ewc.store import Importance

__all__ = ["Penalty"]

_NAMED = 3
# Weights that are rounded to bf16 once are within half of 1/128.
_SAME = 1e-2


class Penalty(TrainerCallback):
    """``weight / 2 * sum_i F_i (theta_i - theta*_i)^2``, part of what is minimised.

    Its gradient needs no autograd: ``weight * F * (theta - theta*)`` is added to the gradients of each
    optimizer step once, when its last batch is through and before clipping, whatever the gradient
    accumulation. Several ranks of DDP add the same to the same averaged gradients.

    As a callback it puts its value before the step, the mean since the last entry, into the log as
    ``ewc_penalty``; ``loss`` remains that of the tokens. It has no state that a resumed run would miss.

    Args:
        trained: the trained parameters, by name.
        importance: of the same parameters.
        weight: of the penalty.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], importance: Importance, weight: float) -> None:
        _check_names(trained, importance)
        self._parts = [
            (parameter, importance.fisher[name], importance.values[name])
            for name, parameter in trained.items()
        ]
        self._weight = weight
        self._values: list[Tensor] = []

    def check_start(self, run: Path, remedy: str) -> None:
        """Refuse weights that are not those at the end of the earlier run.

        Args:
            run: the earlier run, for the message.
            remedy: the setting that starts from its result, for the message.

        Raises:
            ConfigError: they are others.
        """
        for parameter, _, anchor in self._parts:
            if not torch.allclose(parameter.detach().float().cpu(), anchor, rtol=_SAME, atol=1e-6):
                raise ConfigError(
                    f"ewc.from_run = {run}, but this run does not start from what that run ended with, so "
                    f"its importances say nothing about these weights; set {remedy}"
                )

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the penalty's gradient to that of each parameter, and note its value."""
        total: Tensor | None = None
        for parameter, fisher, anchor in self._parts:
            distance = parameter.detach().float() - anchor
            pull = fisher * distance
            value = (pull * distance).sum()
            total = value if total is None else total + value.to(total.device)
            pull = pull.mul_(self._weight).to(parameter.dtype)
            parameter.grad = pull if parameter.grad is None else parameter.grad.add_(pull)
        if total is not None:
            self._values.append(0.5 * self._weight * total)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the parameters to the device that the Trainer has put them on."""
        self._parts = [
            (parameter, fisher.to(parameter.device), anchor.to(parameter.device))
            for parameter, fisher, anchor in self._parts
        ]

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the value into the entry that was just made."""
        entry = state.log_history[-1]
        if "loss" not in entry or not self._values:
            return
        value = fmean(float(one) for one in self._values)
        self._values.clear()
        entry["ewc_penalty"] = value


def _check_names(trained: Mapping[str, nn.Parameter], importance: Importance) -> None:
    """Raise ConfigError where the earlier run trained other weights."""
    found = {name: tuple(tensor.shape) for name, tensor in importance.fisher.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in trained.items()}
    different = [f"{name} {found[name]}, here {shape}" for name, shape in wanted.items()
                 if name in found and found[name] != shape]  # fmt: skip
    parts = {
        "only there": [name for name in found if name not in wanted],
        "only here": [name for name in wanted if name not in found],
        "of another shape": different,
    }
    said = [f"{what}: {_listed(names)}" for what, names in parts.items() if names]
    if said:
        raise ConfigError(
            "ewc.from_run: that run trained other weights than this one. "
            + "; ".join(said)
            + ". Use its model, method and that method's settings (rank, target_modules, size, ...)"
        )


def _listed(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
