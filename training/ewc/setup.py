"""What a run needs for elastic weight consolidation: the penalty at its start, the importances at its end."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpoints.manifest import manifest_sha256
from training.config import TrainConfig
from training.data.dataset import EncodedDataset
from training.ewc.fisher import choose_rows, estimate_fisher, trained_parameters
from training.ewc.penalty import Penalty
from training.ewc.store import Importance, importance_sha256, read_importance, write_importance
from training.methods.registry import method_traits
from training.precision import autocasts

__all__ = ["Fisher", "ewc_inputs", "measure", "prepare_ewc", "save"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fisher:
    """What :func:`measure` found."""

    diagonal: dict[str, Tensor]
    rows: int
    """Of the training data."""
    samples: int
    """Of these rows, so many it is estimated from."""
    tokens: int
    """Trained tokens of the samples."""


def ewc_inputs(config: TrainConfig) -> dict[str, Any]:
    """Return what a run that was cut off must find unchanged.

    Raises:
        CheckpointError: an earlier run is named that saved no importances.
    """
    run = config.ewc.from_run
    return {"ewc": None if run is None else importance_sha256(run)}


def prepare_ewc(config: TrainConfig, model: Any, *, resumed: bool) -> Penalty | None:
    """Return the penalty, or None where no earlier run is named.

    Args:
        config: of the run.
        model: what is trained.
        resumed: whether the run goes on from a state of its own, not from its start.

    Raises:
        ConfigError: the earlier run trained other weights, or this one does not start where it ended.
        CheckpointError: it saved no importances.
    """
    run = config.ewc.from_run
    if run is None:
        return None
    penalty = Penalty(trained_parameters(model), read_importance(run), config.ewc.weight)
    if not resumed:
        whole = method_traits(config.method).result == "checkpoint"
        penalty.check_start(run, f"model = {run}/checkpoint" if whole else f"adapter = {run}/adapter")
    return penalty


def measure(config: TrainConfig, model: Any, data: EncodedDataset, *, pad_id: int) -> Fisher:
    """Estimate the importances on ``config.ewc.samples`` of the training rows."""
    rows = choose_rows(len(data), config.ewc.samples, config.seed)
    logger.info("estimating the importances of the weights on %d rows", len(rows))
    diagonal, tokens = estimate_fisher(model, data, rows, pad_id=pad_id, autocast=autocasts(config))
    return Fisher(diagonal, len(data), len(rows), tokens)


def save(target: Path, config: TrainConfig, model: Any, fisher: Fisher, *, result: Path) -> None:
    """Write the importances, and the weights as they are in the result.

    Those of an earlier run are added, times ``decay``: what is saved remembers all of them (online EWC).

    Args:
        target: ``OUTPUT/ewc``.
        model: as it was written to the result: of a checkpoint, with its weights rounded.
        fisher: of this run.
        result: the sealed result.
    """
    diagonal, earlier = fisher.diagonal, config.ewc.from_run
    if earlier is not None:
        before = read_importance(earlier).fisher
        diagonal = {
            name: one + config.ewc.decay * before[name].to(one.device) for name, one in diagonal.items()
        }
    values = {name: value.detach().float() for name, value in trained_parameters(model).items()}
    facts = {
        "estimator": "diagonal of the empirical Fisher information, per row, over trained tokens",
        "rows": fisher.rows,
        "samples": fisher.samples,
        "trained_tokens": fisher.tokens,
        "seed": config.seed,
        "decay": config.ewc.decay if earlier is not None else None,
        "added_to": importance_sha256(earlier) if earlier is not None else None,
        "result": {"name": result.name, "manifest_sha256": manifest_sha256(result)},
    }
    write_importance(target, Importance(diagonal, values), facts)
